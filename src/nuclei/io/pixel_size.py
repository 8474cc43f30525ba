"""The size of a pixel in micrometres: units, limits of what is possible, and the tags of TIFF and ImageJ."""

import math
from typing import Any

from nuclei.io.picture import PixelSize

SMALLEST, LARGEST = 0.001, 20.0
"""Micrometres a pixel that are believed: with larger ones a nucleus would be smaller than a
pixel."""

_MICROMETRES = {
    "m": 1e6, "metre": 1e6, "meter": 1e6, "dm": 1e5, "cm": 1e4, "centimetre": 1e4, "centimeter": 1e4,
    "mm": 1e3, "millimetre": 1e3, "millimeter": 1e3, "um": 1.0, "µm": 1.0, "micron": 1.0, "micrometre": 1.0,
    "micrometer": 1.0, "nm": 1e-3, "nanometre": 1e-3, "nanometer": 1e-3, "pm": 1e-6, "picometre": 1e-6,
    "picometer": 1e-6, "å": 1e-4, "angstrom": 1e-4, "ångström": 1e-4, "in": 25400.0, "inch": 25400.0, "inche": 25400.0,
    '"': 25400.0, "thou": 25.4, "mil": 25.4, "km": 1e9,
}  # fmt: skip
_INCH, _CENTIMETRE = 2, 3


def micrometres(unit: str) -> float | None:
    """Micrometres of a unit of length by its name or sign; None for pixels and what is not known."""
    name = unit.replace("\\u00B5", "µ").replace("\\u00b5", "µ").replace("μ", "µ").strip().casefold()
    name = name.replace("μ", "µ").replace("&#181;", "µ")
    return _MICROMETRES.get(name) or _MICROMETRES.get(name.removesuffix("s"))


def make_pixel_size(x: float | None, y: float | None, origin: str) -> tuple[PixelSize | None, str]:
    """The size if it is possible, and a note where it was left out or completed; `origin` says where it comes from."""
    if x is None and y is None:
        return None, ""
    if x is None or y is None:
        one = x if y is None else y
        size, note = make_pixel_size(one, one, origin)
        return size, note or f"pixel size of one axis only ({origin}), taken for both"
    if not all(math.isfinite(size) and SMALLEST <= size <= LARGEST for size in (x, y)):
        return None, f"pixel size of {x:.4g} x {y:.4g} um ({origin}) is impossible and left out"
    size = PixelSize(x, y)
    return size, "" if size.is_square else f"pixels are not square: {x:.6g} x {y:.6g} um ({origin})"


def parse_number(text: str | None) -> float | None:
    """A number, or None where the text is none."""
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def tag_pixel_size(page: Any, imagej_unit: str | None) -> tuple[PixelSize | None, str]:
    """Pixel size of a TIFF page by XResolution and YResolution, in ImageJ's unit if it names one, else in the tag's.

    Resolutions per inch are mostly a printer's and then impossible, which is no news and makes no
    note.
    """
    tags = [page.tags.get(name) for name in ("XResolution", "YResolution")]
    per_unit = [_read_ratio(tag) for tag in tags]
    if per_unit == [None, None]:
        return None, "" if tags == [
            None,
            None,
        ] else "resolution tags without a value: no pixel size"
    unit = micrometres(imagej_unit) if imagej_unit else None
    origin = f"ImageJ, in {imagej_unit}" if unit else "TIFF resolution"
    resolution_unit = page.tags.get("ResolutionUnit")
    number = int(resolution_unit.value) if resolution_unit is not None else 1
    if unit is None:
        unit = {_INCH: 25400.0, _CENTIMETRE: 10000.0}.get(number)
    if unit is None:
        return None, ""
    x, y = (unit / ratio if ratio else None for ratio in per_unit)
    size, note = make_pixel_size(x, y, origin)
    is_printers = size is None and number == _INCH
    return size, "" if is_printers else note


def _read_ratio(tag: Any) -> float | None:
    """Pixels per unit of a tag with numerator and denominator; None for zero, infinity and what is no ratio."""
    try:
        numerator, denominator = (float(value) for value in tag.value)
        ratio = numerator / denominator
    except (AttributeError, TypeError, ValueError, ZeroDivisionError):
        return None
    return ratio if ratio > 0 and math.isfinite(ratio) else None
