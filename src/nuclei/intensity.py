"""Pixel values of any type to the network's input: a window of intensities, then a normalisation.

The window is where cameras and scanners differ: it takes 8- or 16-bit, signed or float pixels, grey or colour, and
answers with 8-bit RGB, which all that follows (augmentation, zooms, normalisation) is made for. 256 levels between
black and white are more than the noise of a camera, or of a CT of soft tissue, leaves to be seen.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nuclei.config import IntensityConfig

Pixels = npt.NDArray[Any]
UInt8Array = npt.NDArray[np.uint8]

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

Normalisation = Literal["half", "imagenet", "z_score"]


def window_image(image: Pixels, config: IntensityConfig) -> UInt8Array:
    """RGB image (H, W, 3) uint8 of any image in the config's window of intensities.

    `image` is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), whose fourth channel, transparency, is dropped; integers of
    any size, signed ones included, or float. Values keep the image's own units: Hounsfield units stay such.

    Raises:
        ValueError: another shape or type; values that are not finite; no window for an image that needs one.
    """
    image = _to_colour(image)
    if config.window == "percentile":
        return stretch(image, config.low_percentile, config.high_percentile)
    if config.window == "level":
        assert config.window_level is not None  # the config refuses a window without them
        assert config.window_width is not None
        return level_window(image, config.window_level, config.window_width)
    if image.dtype != np.uint8:
        raise ValueError(
            f'got an image of type {image.dtype} where intensity.window = "none" takes uint8 as it is; set it to '
            '"percentile", or to "level" with window_level and window_width'
        )
    return image


def to_display(image: Pixels) -> UInt8Array:
    """RGB image (H, W, 3) uint8 for eyes, and for methods without a config: 8 bits as they are, all else stretched.

    Raises:
        ValueError: as in `window_image`.
    """
    image = _to_colour(image)
    return image if image.dtype == np.uint8 else stretch(image, 0.1, 99.9)


def stretch(image: Pixels, low: float, high: float) -> UInt8Array:
    """The image with its `low` percentile at 0 and its `high` percentile at 255, (H, W, 3) uint8, of (H, W, 3).

    One window serves the three channels, so that colours keep their hue. A uint8 image that is constant between the
    percentiles comes back unchanged; of other types the darkest becomes 0 and the brightest 255.
    """
    if image.dtype in (np.uint8, np.uint16, np.int16):
        return _stretch_counted(image, low, high)
    black, white = (float(value) for value in np.percentile(image.astype(np.float64), (low, high)))
    if white <= black:
        black, white = float(image.min()), float(image.max())
    return _scale(image, black, white)


def level_window(image: Pixels, level: float, width: float) -> UInt8Array:
    """The image with level - width / 2 at 0 and level + width / 2 at 255, beyond them clipped, the same shape, uint8.

    Source: DICOM PS3.3, C.11.2.1.3.2, the function LINEAR_EXACT.
    """
    return _scale(image, level - width / 2, level + width / 2)


def normalise(image: UInt8Array, normalisation: Normalisation, channels: int) -> npt.NDArray[np.float32]:
    """The network's input (C, H, W) float32 of an RGB image (H, W, 3) uint8; one channel is the mean of the three."""
    values = image.astype(np.float32) / 255
    if normalisation == "imagenet":
        values = (values - IMAGENET_MEAN) / IMAGENET_DEVIATION
    elif normalisation == "half":
        values = values * 2 - 1
    if channels == 1:
        values = values.mean(axis=2, keepdims=True)
    if normalisation == "z_score":
        values = (values - values.mean()) / max(float(values.std()), 1e-3)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _to_colour(image: Pixels) -> Pixels:
    """The image as (H, W, 3), its type kept."""
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,), (4,)) or not image.size:
        raise ValueError(
            f"got an image of shape {image.shape}, expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); choose one "
            "plane of a stack, and move the axis of channels to the end"
        )
    if image.dtype.kind not in "iuf":
        raise ValueError(f"got an image of type {image.dtype}, expected integers or float; convert it")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        wrong = int(image.size - np.isfinite(image).sum())
        raise ValueError(f"{wrong} of the image's {image.size} values are not finite; replace them, as by the smallest")
    grey = image.ndim == 2 or image.shape[2] == 1
    return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2) if grey else image[..., :3]


def _stretch_counted(image: Pixels, low: float, high: float) -> UInt8Array:
    """`stretch` of 8 and 16 bits, by their histogram: an image has many pixels and few values."""
    lowest, highest = np.iinfo(image.dtype).min, np.iinfo(image.dtype).max
    levels = image.astype(np.int32) - lowest if lowest else image
    histogram = np.bincount(levels.ravel(), minlength=highest - lowest + 1).cumsum()
    black = int(np.searchsorted(histogram, low / 100 * histogram[-1], side="right"))
    white = int(np.searchsorted(histogram, high / 100 * histogram[-1], side="left"))
    if white <= black:
        if image.dtype == np.uint8:
            return image
        black, white = int(levels.min()), int(levels.max())
    return np.take(_scale(np.arange(len(histogram)), black, white), levels)


def _scale(values: Pixels, black: float, white: float) -> UInt8Array:
    """Values with `black` at 0 and `white` at 255, clipped and rounded, uint8; all 0 where both are the same."""
    if white <= black:
        return np.zeros(values.shape, np.uint8)
    above = values.astype(np.float64) - black  # float32 cannot hold large integers
    return np.clip(np.rint(above * (255 / (white - black))), 0, 255).astype(np.uint8)
