"""The array that `segment` is given, as a picture: one of its channels, its gaps filled."""

from typing import Any

import numpy as np

from nuclei.arrays import Pixels
from nuclei.data.intensity import check_image
from nuclei.errors import UserError
from nuclei.io.microscopy import fill_gaps
from nuclei.io.picture import COLOURS, Channel, Picture, Reading, choose_channel
from nuclei.io.plane_checks import find_doubts


def read_array(image: Any, channel: Channel | None) -> Picture:
    """An array, or what NumPy takes for one, such as a picture of Pillow or a tensor, as a picture.

    Raises:
        UserError: no array of numbers; another shape; channels that seem to be the first axis.
    """
    pixels = _to_numpy(image)
    if channel is not None and pixels.ndim == 3:
        pixels = _take_channel(pixels, channel)
    pixels, outside, note = fill_gaps(pixels, Reading(channel))
    check_image(pixels)
    is_colour = pixels.ndim == 3 and pixels.shape[2] > 1
    plane = pixels[..., :3] if is_colour else pixels.reshape(pixels.shape[:2])
    notes = ((note,) if note else ()) + find_doubts(plane)
    return Picture("", pixels, outside=outside, notes=notes, doubts=notes)


def _to_numpy(image: Any) -> Pixels:
    if isinstance(image, np.ma.MaskedArray):
        raise UserError("got a masked array; give image.filled(value) with a value of the background")
    if getattr(image, "mode", None) == "P":
        # Pillow's palettes: the numbers of colours are no intensities
        image = image.convert("RGB")
    try:
        pixels = np.asarray(image)
    except (TypeError, ValueError) as error:
        raise UserError(f"got a {type(image).__name__} that is no array of numbers ({error})") from error
    if pixels.ndim < 2 or pixels.dtype.kind == "O":
        raise UserError(f"got a {type(image).__name__} that is no array (H, W) or (H, W, 3) of numbers")
    return pixels if pixels.dtype.isnative else pixels.astype(pixels.dtype.newbyteorder("="))


def _take_channel(pixels: Pixels, channel: Channel) -> Pixels:
    """A channel of the last axis, (H, W)."""
    first, second, count = pixels.shape
    if count > first and second >= 4 * first:
        raise UserError(
            f"got an array of shape {pixels.shape}, which seems to have its channels first; "
            "expected them last, as np.moveaxis(image, 0, -1) gives"
        )
    number = COLOURS.index(channel) + 1 if isinstance(channel, str) else channel
    return np.asarray(pixels[..., choose_channel(count, number, f"{pixels.shape}")[0]])
