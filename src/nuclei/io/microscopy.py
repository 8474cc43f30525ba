"""Pictures as people have them: PNG, JPEG and TIFF of any size and type of pixels, stacks and single channels too.

A header is read before the pixels are: a small file can claim more of them than the memory holds. Large TIFFs are
unpacked into a file, not into memory.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclei.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MAX_PIXELS = 500_000_000
"""Planes with more pixels are refused unless more are allowed."""

_IN_MEMORY = 2**28
"""Bytes beyond which a TIFF is unpacked into a file."""


@dataclass(frozen=True)
class Picture:
    """One plane: pixels (H, W) or (H, W, 3 or 4) in their own type, and the size of one in micrometres, if known."""

    name: str
    pixels: npt.NDArray[Any]
    pixel_size: float | None


def find_pictures(folder: Path) -> dict[str, Path]:
    """The pictures of a folder, or the one file given, by the name of their results: the file's without its ending.

    Raises:
        UserError: there are none.
    """
    paths = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    paths = [path for path in paths if path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()]
    if not paths:
        raise UserError(f"{folder}: no pictures there; give a folder with files that end in {', '.join(SUFFIXES)}")
    stems = [path.stem for path in paths]
    return {path.stem if stems.count(path.stem) == 1 else path.name: path for path in paths}


def read_pictures(path: Path, name: str, channel: int | None = None, max_pixels: int = MAX_PIXELS) -> Iterator[Picture]:
    """The planes of a file; those of a stack have their number in the name. `channel` counts from 1, as Fiji does.

    Raises:
        UserError: a file that cannot be read; too many pixels; several channels of which none is chosen.
    """
    try:
        is_tiff = path.suffix.lower() in (".tif", ".tiff")
        yield from (
            _read_tiff(path, name, channel, max_pixels) if is_tiff else [_read_other(path, name, channel, max_pixels)]
        )
    except (ValueError, MemoryError) as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # decoders raise all kinds for a broken file
        raise UserError(f"{path}: cannot be read ({type(error).__name__}: {error}); save it anew") from error


def _read_other(path: Path, name: str, channel: int | None, max_pixels: int) -> Picture:
    """PNG by OpenCV, which keeps 16 bits, and JPEG by Pillow, which notices that one is cut off."""
    import cv2
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # the limit here is max_pixels
    try:
        with Image.open(path) as header:
            _check_budget(header.height, header.width, 1, max_pixels)
            is_png = header.format == "PNG"
            pixels: Any = None if is_png else np.asarray(header.convert("RGB") if header.mode != "L" else header)
            if is_png:
                header.verify()
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if is_png:
        decoded = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if decoded is None:
            raise UserError("cannot be decoded; save it anew")
        pixels = decoded if decoded.ndim == 2 else decoded[..., [2, 1, 0]]
    return Picture(name, _choose(pixels, channel) if pixels.ndim == 3 else pixels, None)


def _read_tiff(path: Path, name: str, channel: int | None, max_pixels: int) -> Iterator[Picture]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        axes, sizes = series.axes, dict(zip(series.axes, series.shape, strict=True))
        _check_budget(sizes["Y"], sizes["X"], sizes.get("S", 1), max_pixels)
        pixel_size = _find_pixel_size(file)
        data = series.asarray(out="memmap" if series.nbytes > _IN_MEMORY else None).reshape(series.shape)
    if data.dtype == bool:
        data = data.astype(np.uint8) * 255
    extra = [axis for axis in axes if axis not in "YXSC"]
    colours = next((axis for axis in "CS" if axis in axes), None)
    if colours is None and channel is not None and len(extra) == 1:
        colours, extra = extra[0], []  # who asks for a channel says that this is what the planes are
    order = [axes.index(axis) for axis in (*extra, "Y", "X", *(axis for axis in "SC" if axis in axes))]
    if colours and colours not in "CS":
        order.append(axes.index(colours))
    data = data.transpose(order)
    planes = list(np.ndindex(data.shape[: len(extra)]))
    for number, index in enumerate(planes, start=1):
        plane = data[index]
        while plane.ndim > 3:
            plane = plane[..., 0, :]
        if plane.ndim == 3:
            plane = _choose(plane, channel, must=colours != "S")
        yield Picture(f"{name}_page{number:03d}" if len(planes) > 1 else name, plane, pixel_size)


def _choose(pixels: npt.NDArray[Any], channel: int | None, must: bool = False) -> npt.NDArray[Any]:
    """One channel of (H, W, C), or the colours as they are; `must`: the channels are no colours, so one is needed."""
    count = pixels.shape[2]
    if channel is not None:
        if not 1 <= channel <= count:
            raise UserError(f"has {count} channels; CHANNEL={channel} must be from 1 to {count}")
        return pixels[..., channel - 1]
    if count in (1, 2) and not must:
        return pixels[..., 0]  # grey, with transparency where there are two
    if count == 1:
        return pixels[..., 0]
    if must or count > 4:
        raise UserError(f"has {count} channels; say which shows the nuclei, from CHANNEL=1 to CHANNEL={count}")
    return pixels


def _check_budget(height: int, width: int, samples: int, max_pixels: int) -> None:
    if height * width * max(1, samples // 4) > max_pixels:
        raise UserError(
            f"claims {width} x {height} pixels, more than the {max_pixels:,} that are read; if it is meant to, give "
            "MAX_PIXELS=<more>"
        )


def _find_pixel_size(file: Any) -> float | None:
    """Micrometres a pixel by OME, ImageJ or a resolution in centimetres; inches are a printer's and say nothing."""
    if file.ome_metadata:
        found = re.search(r'PhysicalSizeX="([0-9.eE+-]+)"(?:[^>]*PhysicalSizeXUnit="([^"]+)")?', file.ome_metadata)
        return float(found[1]) if found and (found[2] or "µm") in ("µm", "um", "&#181;m") else None
    tags = file.pages[0].tags
    if "XResolution" not in tags or not tags["XResolution"].value[0]:
        return None
    per_unit = tags["XResolution"].value[0] / tags["XResolution"].value[1]
    if file.is_imagej and (file.imagej_metadata or {}).get("unit") in ("micron", "um", "µm", "\\u00B5m"):
        return 1 / float(per_unit)
    is_centimetre = "ResolutionUnit" in tags and int(tags["ResolutionUnit"].value) == 3
    return 10_000 / float(per_unit) if is_centimetre else None
