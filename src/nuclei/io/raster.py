"""PNG, JPEG, BMP, GIF, WebP, JPEG 2000 and PNM: the frames of files that hold no microscope's metadata."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nuclei.arrays import Pixels
from nuclei.errors import UserError
from nuclei.io.images import is_grey
from nuclei.io.picture import (
    Contents,
    Plane,
    Reading,
    check_size,
    choose_channel,
    choose_colour,
    shape_text,
)
from nuclei.io.tiff_planes import orient

_EXIF_ORIENTATION = 0x0112
_PNG_COLOUR_TYPE = 25
"""Byte of a PNG that tells how its pixels are stored."""
_PNG_GREY, _PNG_PALETTE = (0, 4), 3
_ONE_PICTURE = ("MPO", "JPEG")
"""Formats whose further frames are previews of the first."""


@contextmanager
def open_raster(path: Path, reading: Reading) -> Iterator[Contents]:
    """The frames of a file, each by itself; a PNG keeps its 16 bits, all of JPEG 2000 its depth.

    Raises:
        UserError: too many pixels by the header; a file that no decoder takes.
    """
    from PIL import Image

    # the limits here are those of `reading`; bytes are read first, as a decoder may not take the
    # file's name
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with path.open("rb") as file, Image.open(file) as header:
            yield _list_frames(header, path, reading)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _list_frames(header: Any, path: Path, reading: Reading) -> Contents:
    frames = int(getattr(header, "n_frames", 1))
    contents = Contents(str(header.format))
    if frames > 1 and header.format in _ONE_PICTURE:
        contents.notes.append(f"{frames - 1} previews of the picture left aside")
        frames = 1
    check_size(header.height, header.width, reading.max_pixels)
    orientation = int(header.getexif().get(_EXIF_ORIENTATION, 1)) if header.format != "GIF" else 1
    height, width = (header.width, header.height) if orientation >= 5 else (header.height, header.width)
    notes = [note for note in (_describe(header, reading), _describe_turn(orientation)) if note]
    for frame in range(frames):
        contents.planes.append(
            Plane(
                height,
                width,
                lambda frame=frame: _load(header, path, frame, frames, orientation, reading),  # type: ignore[misc]
                f"frame {frame + 1}" if frames > 1 else "",
                None,
                tuple(notes),
            )
        )
    return contents


def _describe(header: Any, reading: Reading) -> str:
    if header.mode == "CMYK":
        return "CMYK converted to RGB"
    is_grey = header.mode in ("1", "L", "LA", "I", "F") or header.mode.startswith("I;16")
    return "" if is_grey or header.mode == "P" else choose_colour(reading.channel)[1]


def _describe_turn(orientation: int) -> str:
    return "" if orientation == 1 else "turned or mirrored by the file's EXIF orientation, as viewers show it"


def _load(header: Any, path: Path, frame: int, frames: int, orientation: int, reading: Reading) -> Pixels:
    """One frame (H, W) or (H, W, 3)."""
    if header.format == "PNG" and frames == 1:
        pixels = _decode_png(path)
    elif header.format == "JPEG2000":
        pixels = _decode_jpeg2000(path)
    else:
        pixels = _decode_by_pillow(header, frame)
    return orient(_choose(pixels, reading), orientation)


def _decode_png(path: Path) -> Pixels:
    """A PNG by OpenCV, which keeps 16 bits; Pillow notices that one is cut off or damaged."""
    import cv2
    from PIL import Image

    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as header:
        header.verify()
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise UserError("cannot be decoded; save it again")
    if decoded.ndim == 2:
        return np.asarray(decoded)
    kind = content[_PNG_COLOUR_TYPE]
    single = kind in _PNG_GREY or (kind == _PNG_PALETTE and is_grey(decoded))
    return np.asarray(decoded[..., 0] if single else decoded[..., [2, 1, 0]])


def _decode_jpeg2000(path: Path) -> Pixels:
    import imagecodecs

    return np.asarray(imagecodecs.jpeg2k_decode(path.read_bytes()))


def _decode_by_pillow(header: Any, frame: int) -> Pixels:
    """Colours as RGB; grey, also of a palette, as it is."""
    if frame or getattr(header, "n_frames", 1) > 1:
        header.seek(frame)
    mode = header.mode
    if mode == "1":
        return np.asarray(header.convert("L"))
    if mode in ("L", "I", "F") or mode.startswith("I;16"):
        return np.asarray(header)
    if mode == "LA":
        return np.asarray(header)[..., 0]
    pixels = np.asarray(header.convert("RGB"))
    is_palette = mode == "P" or header.format == "GIF"
    return pixels[..., 0] if is_palette and is_grey(pixels) else pixels


def _choose(pixels: Pixels, reading: Reading) -> Pixels:
    """The colour that is asked for, or all three; of other numbers of samples a channel must be chosen."""
    if pixels.ndim == 2:
        return pixels
    count = pixels.shape[2]
    if count in (3, 4):
        colour, _ = choose_colour(reading.channel)
        return pixels[..., :3] if colour is None else pixels[..., colour]
    return pixels[..., choose_channel(count, reading.channel, shape_text("YXS", pixels.shape))[0]]
