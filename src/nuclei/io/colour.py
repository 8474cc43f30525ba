"""Colour models of TIFF pages: what becomes grey or RGB, what is converted, and what is refused by name."""

from typing import Any

import numpy as np

from nuclei.arrays import Pixels
from nuclei.errors import UserError

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _SEPARATED, _YCBCR = 0, 1, 2, 3, 5, 6
GREY = (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE)
_READ = (*GREY, _RGB, _SEPARATED, _YCBCR)
_NAMES = {
    4: "a transparency mask",
    8: "CIELAB colours",
    9: "ICC LAB colours",
    10: "ITU LAB colours",
    32803: "a colour filter array (raw camera data)",
    32844: "LogL",
    32845: "LogLuv",
    51177: "a depth map",
}
_JPEG = (6, 7, 33007, 34892)


def check_colour(page: Any, from_imagej: bool = False) -> None:
    """Refuses colour models that are not converted here.

    Raises:
        UserError: Lab, inks other than CMYK, raw camera data and so on, by name.
    """
    model = int(page.photometric)
    remedy = "save it as RGB or grey"
    if model not in _READ:
        raise UserError(f"holds {_NAMES.get(model, f'photometric interpretation {model}')}; {remedy}")
    if model == _SEPARATED and (page.samplesperpixel < 4 or _tag(page, "InkSet", 1) != 1):
        raise UserError(f"holds {page.samplesperpixel} inks that are not CMYK; {remedy}")
    if model == _SEPARATED and np.dtype(page.dtype).kind != "u":
        raise UserError(f"holds CMYK of type {page.dtype}; {remedy}")
    if model == _WHITE_IS_ZERO and not from_imagej and np.dtype(page.dtype).kind not in "ub":
        raise UserError(f"holds values of type {page.dtype} of which white is 0; save it with black as 0")
    is_subsampled = model == _YCBCR and _tag(page, "YCbCrSubSampling", (2, 2)) != (1, 1)
    if model == _YCBCR and not _is_jpeg(page) and (is_subsampled or page.dtype != np.uint8):
        raise UserError(f"holds YCbCr colours without JPEG compression; {remedy}")


def is_colour(page: Any) -> bool:
    """Whether samples are colours, not channels."""
    return int(page.photometric) not in GREY


def describe_colour(page: Any, from_imagej: bool) -> str:
    """A note on what `convert_colour` does to the values of a page; empty where they stay as they are."""
    model = int(page.photometric)
    if model == _PALETTE and page.colormap is not None:
        if _is_display_palette(np.asarray(page.colormap), from_imagej):
            return "display colours ignored: the values are intensities"
        return "palette: colours looked up"
    if model == _YCBCR:
        return "YCbCr converted to RGB"
    if model == _WHITE_IS_ZERO and from_imagej:
        return "shown inverted by ImageJ: the values are intensities"
    return {_WHITE_IS_ZERO: "white is zero: inverted", _SEPARATED: "CMYK converted to RGB"}.get(model, "")


def convert_colour(pixels: Pixels, page: Any, from_imagej: bool) -> Pixels:
    """The plane (H, W) or (H, W, S) as grey or RGB with black at 0."""
    model = int(page.photometric)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    # ImageJ inverts its display colours, not the values
    if model == _WHITE_IS_ZERO and not from_imagej:
        highest = 255 if page.bitspersample == 1 else 2**page.bitspersample - 1
        return np.asarray((highest - pixels).astype(pixels.dtype))
    if model == _PALETTE and page.colormap is not None:
        return _look_up(pixels, np.asarray(page.colormap), from_imagej)
    if model == _SEPARATED:
        return _from_cmyk(pixels)
    if model == _YCBCR and not _is_jpeg(page):
        return _from_ycbcr(pixels)
    return pixels


def _is_display_palette(colormap: Any, from_imagej: bool) -> bool:
    """Whether colours only show intensities, which are the values: ImageJ's, and ramps from dark to bright."""
    steps = np.diff(colormap.astype(np.int64), axis=1)
    return from_imagej or bool((steps >= 0).all() and (steps > 0).any())


def _look_up(pixels: Pixels, colormap: Any, from_imagej: bool) -> Pixels:
    if _is_display_palette(colormap, from_imagej):
        return pixels
    table = np.asarray(colormap if colormap.max(initial=0) < 256 else colormap >> 8).astype(np.uint8)
    grey = bool((table[0] == table[1]).all() and (table[0] == table[2]).all())
    return table[0][pixels] if grey else np.ascontiguousarray(table.T)[pixels]


def _from_cmyk(pixels: Pixels) -> Pixels:
    """RGB of ink: white paper seen through each ink and through black."""
    highest = np.iinfo(pixels.dtype).max
    paper = (highest - pixels[..., :4]).astype(np.float64)
    rgb = paper[..., :3] * (paper[..., 3:] / highest)
    return np.rint(rgb).astype(pixels.dtype)


def _from_ycbcr(pixels: Pixels) -> Pixels:
    """RGB of uint8 YCbCr by ITU-R BT.601 with the full range, the default of TIFF 6.0."""
    luma = pixels[..., 0].astype(np.float64)
    blue, red = (pixels[..., index].astype(np.float64) - 128 for index in (1, 2))
    rgb = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=-1)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def _is_jpeg(page: Any) -> bool:
    """Whether the decoder of the compression gives RGB already."""
    return int(page.compression) in _JPEG


def _tag(page: Any, name: str, default: Any) -> Any:
    tag = page.tags.get(name)
    return default if tag is None else tag.value
