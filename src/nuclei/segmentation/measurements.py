"""Measurements of segmented nuclei: area, position, shape and intensity."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nuclei.arrays import Labels
from nuclei.io.files import release
from nuclei.io.picture import PixelSize

_RELEASED = 1000
"""Nuclei after which the parts of the image that were read for them leave the memory again."""


class Nucleus(NamedTuple):
    """One nucleus: its label, the row and column of its box, its mask there, and the pixels there."""

    label: int
    top: int
    left: int
    mask: npt.NDArray[np.bool_]
    pixels: npt.NDArray[Any]


def list_nuclei(label_map: Labels, pixels: npt.NDArray[Any]) -> Iterator[Nucleus]:
    """The nuclei of a label map in the order of labels; both arrays may lie on a disk."""
    from scipy import ndimage

    for label, box in enumerate(ndimage.find_objects(label_map), start=1):
        if box is not None:
            mask = np.asarray(label_map[box]) == label
            yield Nucleus(label, box[0].start, box[1].start, mask, np.asarray(pixels[box]))
        if label % _RELEASED == 0:
            release(label_map)
            release(pixels)


def measure(nucleus: Nucleus, pixel_size: PixelSize | None) -> dict[str, float]:
    """Measurements in pixels, and in micrometres where the size of a pixel is known; coordinates of pixels' middles.

    Where pixels are not square there is no perimeter in micrometres: its estimate holds for square
    ones.
    """
    from skimage.measure import regionprops

    region = regionprops(nucleus.mask.astype(np.uint8), intensity_image=nucleus.pixels)[0]
    row = {
        "label": nucleus.label,
        "area": float(region.area),
        "centroid_x": region.centroid[1] + nucleus.left,
        "centroid_y": region.centroid[0] + nucleus.top,
        "major_axis": region.axis_major_length,
        "minor_axis": region.axis_minor_length,
        "perimeter": region.perimeter,
        "eccentricity": region.eccentricity,
    }
    if pixel_size:
        row |= _measure_micrometres(nucleus, row, pixel_size)
    names = ("",) if nucleus.pixels.ndim == 2 else ("_red", "_green", "_blue")
    for statistic in ("mean", "min", "max"):
        values = np.atleast_1d(getattr(region, f"intensity_{statistic}"))
        row |= {
            f"intensity_{statistic}{name}": float(value) for name, value in zip(names, values, strict=False)
        }
    return row


def _measure_micrometres(nucleus: Nucleus, row: dict[str, float], size: PixelSize) -> dict[str, float]:
    from skimage.measure import regionprops

    measured = {
        "area_um2": row["area"] * size.x * size.y,
        "centroid_x_um": row["centroid_x"] * size.x,
        "centroid_y_um": row["centroid_y"] * size.y,
    }
    if size.is_square:
        return measured | {
            f"{name}_um": row[name] * size.x for name in ("major_axis", "minor_axis", "perimeter")
        }
    region = regionprops(nucleus.mask.astype(np.uint8), spacing=(size.y, size.x))[0]
    return measured | {
        "major_axis_um": region.axis_major_length,
        "minor_axis_um": region.axis_minor_length,
    }
