"""Pixel values of any type to the network's input: a window of intensities, then a normalisation.

Windowing takes 8- or 16-bit, signed or float pixels, grey or colour, and gives 8-bit RGB, the input
of augmentation, scaling and normalisation. 256 levels from black to white are finer than the noise
of a camera or of a CT of soft tissue.
"""

from collections.abc import Iterator
from functools import cache
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from nuclei.arrays import Pixels, UInt8Array
from nuclei.config import IntensityConfig
from nuclei.errors import UserError

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

Normalisation = Literal["half", "imagenet", "z_score"]


Limits = tuple[float, float]
"""The values that become black and white, in the image's own units."""

_SAMPLE = 2**24
"""Values from which the percentiles of a float or 32-bit image are computed; a regular sample of
more."""
_BAND = 2**22
"""Pixels that are processed at a time."""


def window_image(image: Pixels, config: IntensityConfig) -> UInt8Array:
    """RGB image (H, W, 3) uint8 of any image, by the config's window of intensities.

    `image` is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), whose transparency is dropped; integers of
    any size, signed too, or float. The window is in the image's own units, such as Hounsfield
    units.

    Raises: UserError: another shape or type; values that are not finite; no window for an image
        that needs one.
    """
    return apply_limits(image, find_limits(image, config))


def find_limits(image: Pixels, config: IntensityConfig) -> Limits | None:
    """Black and white level of the config's window for an image; None if its 8 bits are used as is.

    The image is read in bands of rows, since it may be memory-mapped.

    Raises:
        UserError: as in `window_image`.
    """
    check_image(image)
    if config.window == "percentile":
        return percentile_limits(image, config.low_percentile, config.high_percentile)
    if config.window == "level":
        assert config.window_level is not None  # the config refuses a window without them
        assert config.window_width is not None
        return level_limits(config.window_level, config.window_width)
    if image.dtype != np.uint8:
        raise UserError(
            f'got an image of type {image.dtype} where intensity.window = "none" takes uint8 as it is; set it to '
            '"percentile", or to "level" with window_level and window_width'
        )
    return None


def apply_limits(image: Pixels, limits: Limits | None) -> UInt8Array:
    """An image or a part of it as RGB (H, W, 3) uint8: black to white linear, clipped, rounded."""
    image = _to_colour(image)
    if limits is None:
        return image
    if image.dtype.itemsize > 2 or image.dtype.kind == "f":
        return _scale(image, *limits)
    lowest, highest = np.iinfo(image.dtype).min, np.iinfo(image.dtype).max
    table = _scale(np.arange(lowest, highest + 1), *limits)
    if image.dtype == np.uint8:
        return np.asarray(cv2.LUT(image, table), np.uint8)
    return np.take(table, image.astype(np.int32) - lowest if lowest else image)


def to_display(image: Pixels) -> UInt8Array:
    """RGB image (H, W, 3) uint8 for display: 8 bits as they are, other types stretched.

    Raises:
        UserError: as in `window_image`.
    """
    return apply_limits(image, display_limits(image))


def display_limits(image: Pixels) -> Limits | None:
    """The limits of `to_display`."""
    check_image(image)
    return None if image.dtype == np.uint8 else percentile_limits(image, 0.1, 99.9)


def stretch(image: Pixels, low: float, high: float) -> UInt8Array:
    """The image with its `low` percentile at 0 and its `high` percentile at 255, (H, W, 3) uint8.

    The three channels have the same window, so that hues are kept. A uint8 image that is constant
    between the percentiles is unchanged; for other types the minimum becomes 0 and the maximum 255.
    """
    return apply_limits(image, percentile_limits(image, low, high))


def percentile_limits(image: Pixels, low: float, high: float) -> Limits | None:
    """The limits of `stretch`; None where a uint8 image stays unchanged."""
    if image.dtype in (np.uint8, np.uint16, np.int16):
        return _counted_limits(image, low, high)
    channels = image.reshape(*image.shape[:2], -1)[..., :3]
    step = max(1, int(np.ceil(np.sqrt(channels.size / _SAMPLE))))
    sample = channels[::step, ::step].astype(np.float64)
    black, white = (float(value) for value in np.percentile(sample, (low, high)))
    return (black, white) if white > black else (float(sample.min()), float(sample.max()))


def level_window(image: Pixels, level: float, width: float) -> UInt8Array:
    """Maps level - width / 2 to 0 and level + width / 2 to 255, clipped; same shape, uint8.

    Source: DICOM PS3.3, C.11.2.1.3.2, the function LINEAR_EXACT.
    """
    return _scale(image, *level_limits(level, width))


def level_limits(level: float, width: float) -> Limits:
    return level - width / 2, level + width / 2


def check_channels(channels: int) -> None:
    """Raises a UserError unless images can be given to a network with so many input channels."""
    if channels not in (1, 3):
        raise UserError(
            f"model.in_channels = {channels}, but images are read as 3 channels (RGB) or 1 (their "
            "mean); set it to 3 or 1"
        )


def normalise(
    image: UInt8Array,
    normalisation: Normalisation,
    channels: int,
    statistics: tuple[float, float] | None = None,
) -> npt.NDArray[np.float32]:
    """Network input (C, H, W) float32 of an RGB image (H, W, 3) uint8; one channel: the mean.

    `statistics` are mean and standard deviation for z_score, by default those of `image`; a tile
    gets those of its whole image.
    """
    if channels == 1 or normalisation == "z_score":
        return np.ascontiguousarray(_normalise(image, normalisation, channels, statistics).transpose(2, 0, 1))
    # a table of the 256 values takes a tenth of the time
    answers = np.empty((3, *image.shape[:2]), np.float32)
    for place, channel in enumerate(cv2.split(np.ascontiguousarray(image))):
        cv2.LUT(channel, _tables(normalisation)[place], answers[place])
    return answers


@cache
def _tables(normalisation: Normalisation) -> npt.NDArray[np.float32]:
    """Normalised value of each channel and 8-bit value, (3, 256)."""
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 1, 3)
    return np.ascontiguousarray(_normalise(values, normalisation, 3, None)[:, 0].T)


def _normalise(
    image: UInt8Array,
    normalisation: Normalisation,
    channels: int,
    statistics: tuple[float, float] | None,
) -> npt.NDArray[np.float32]:
    """`normalise` with the channels last."""
    values = image.astype(np.float32) / 255
    if normalisation == "imagenet":
        values = (values - IMAGENET_MEAN) / IMAGENET_DEVIATION
    elif normalisation == "half":
        values = values * 2 - 1
    if channels == 1:
        values = values.mean(axis=2, keepdims=True)
    if normalisation == "z_score":
        mean, deviation = statistics or (float(values.mean()), float(values.std()))
        values = (values - mean) / max(deviation, 1e-3)
    return np.asarray(values, np.float32)


def measure_statistics(image: Pixels, limits: Limits | None, channels: int) -> tuple[float, float]:
    """Mean and standard deviation of a windowed image for z_score; it may be memory-mapped."""
    total = squares = count = 0.0
    for band in _bands(image):
        values = apply_limits(band, limits).astype(np.float64) / 255
        values = values.mean(axis=2) if channels == 1 else values
        total, squares, count = (
            total + values.sum(),
            squares + (values**2).sum(),
            count + values.size,
        )
    return float(total / count), float(np.sqrt(max(squares / count - (total / count) ** 2, 0.0)))


def check_image(image: Pixels) -> None:
    """Raises a UserError unless the image is one that `window_image` takes."""
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,), (4,)) or not image.size:
        raise UserError(
            f"got an image of shape {image.shape}, expected (H, W), (H, W, 1), (H, W, 3) or (H, "
            "W, 4); choose one plane of a stack, and move the channel axis to the end"
        )
    if image.dtype.kind not in "iuf":
        raise UserError(f"got an image of type {image.dtype}, expected integers or float; convert it")
    if image.dtype.kind == "f":
        wrong = sum(int(band.size - np.isfinite(band).sum()) for band in _bands(image))
        if wrong:
            raise UserError(
                f"{wrong} of the image's {image.size} values are not finite; replace them, as by the smallest"
            )


def _bands(image: Pixels) -> Iterator[Pixels]:
    """The image in bands of rows, of which only one need be in memory."""
    rows = max(1, _BAND // image.shape[1])
    for top in range(0, image.shape[0], rows):
        yield image[top : top + rows]


def _to_colour(image: Pixels) -> Pixels:
    """The image as (H, W, 3), its type kept."""
    grey = image.ndim == 2 or image.shape[2] == 1
    return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2) if grey else image[..., :3]


def _counted_limits(image: Pixels, low: float, high: float) -> Limits | None:
    """`percentile_limits` of 8- and 16-bit images by their histogram."""
    lowest, highest = np.iinfo(image.dtype).min, np.iinfo(image.dtype).max
    counts = np.zeros(highest - lowest + 1, np.int64)
    for band in _bands(image):
        levels = band[..., :3] if image.ndim == 3 else band
        if lowest:
            levels = (levels.astype(np.int32) - lowest).astype(np.uint16)
        # it counts in float32, which is exact for a band, and takes less than half of NumPy's time
        count = cv2.calcHist([levels.reshape(1, -1)], [0], None, [len(counts)], [0, len(counts)])
        counts += count.ravel().astype(np.int64)
    # grey counts as three equal channels, so that it is rounded like the same image in colour
    histogram = counts.cumsum() * (3 if image.ndim == 2 or image.shape[2] == 1 else 1)
    black = int(np.searchsorted(histogram, low / 100 * histogram[-1], side="right"))
    white = int(np.searchsorted(histogram, high / 100 * histogram[-1], side="left"))
    if white <= black:
        if image.dtype == np.uint8:
            return None
        black, white = int(np.flatnonzero(counts)[0]), int(np.flatnonzero(counts)[-1])
    return black + lowest, white + lowest


def _scale(values: Pixels, black: float, white: float) -> UInt8Array:
    """Maps `black` to 0 and `white` to 255, clipped, rounded, uint8; all 0 if both are equal."""
    if white <= black:
        return np.zeros(values.shape, np.uint8)
    above = values.astype(np.float64) - black  # float32 cannot hold large integers
    return np.clip(np.rint(above * (255 / (white - black))), 0, 255).astype(np.uint8)
