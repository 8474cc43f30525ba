"""Measurements of segmented nuclei: area, position, shape and intensity."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from nuclei.arrays import Labels
from nuclei.io.files import release
from nuclei.io.picture import PixelSize

Coordinates = npt.NDArray[np.int64]

_RELEASED = 1000
"""Nuclei after which the parts of the image that were read for them leave the memory again."""
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
_NEIGHBOURS = np.array([[10, 2, 10], [2, 1, 2], [10, 2, 10]], np.float32)
"""Weights whose sum over a boundary pixel and its neighbours on the boundary says how the line goes on."""


def _lengths() -> npt.NDArray[np.float64]:
    """Length of the line through a boundary pixel by that sum, (256,)."""
    lengths = np.zeros(256)
    lengths[[5, 7, 15, 17, 25, 27]] = 1
    lengths[[21, 33]] = math.sqrt(2)
    lengths[[13, 23]] = (1 + math.sqrt(2)) / 2
    return lengths


_LENGTHS = _lengths()


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
    rows, columns = np.nonzero(nucleus.mask)
    major, minor = _axes(rows, columns)
    row = {
        "label": nucleus.label,
        "area": float(len(rows)),
        "centroid_x": columns.mean() + nucleus.left,
        "centroid_y": rows.mean() + nucleus.top,
        "major_axis": major,
        "minor_axis": minor,
        "perimeter": _perimeter(nucleus.mask),
        "eccentricity": math.sqrt(1 - (minor / major) ** 2) if major else 0.0,
    }
    if pixel_size:
        row |= _measure_micrometres(nucleus, row, pixel_size)
    names = ("",) if nucleus.pixels.ndim == 2 else ("_red", "_green", "_blue")
    inside = nucleus.pixels[rows, columns]
    for statistic, values in (
        ("mean", inside.mean(axis=0, dtype=np.float64)),
        ("min", inside.min(axis=0)),
        ("max", inside.max(axis=0)),
    ):
        found = zip(names, np.atleast_1d(values), strict=False)
        row |= {f"intensity_{statistic}{name}": float(value) for name, value in found}
    return row


def _axes(
    rows: Coordinates, columns: Coordinates, size: tuple[float, float] = (1.0, 1.0)
) -> tuple[float, float]:
    """Axes of the ellipse with the same second moments, the longer first; `size` is of a pixel, y and x.

    The moments are those of points in the middles of the pixels.
    """
    y, x = (rows - rows.mean()) * size[0], (columns - columns.mean()) * size[1]
    yy, xx, xy = (float((one @ other) / len(rows)) for one, other in ((y, y), (x, x), (x, y)))
    middle, distance = (yy + xx) / 2, math.hypot((yy - xx) / 2, xy)
    return 4 * math.sqrt(max(0.0, middle + distance)), 4 * math.sqrt(max(0.0, middle - distance))


def _perimeter(mask: npt.NDArray[np.bool_]) -> float:
    """Length of the line through the middles of the boundary's pixels, by their neighbours.

    Source: Benkrid and Crookes, Design and FPGA Implementation of a Perimeter Estimator (2000), as in
    scikit-image.
    """
    inside = np.pad(mask, 2).astype(np.uint8)
    boundary = inside - cv2.erode(inside, _CROSS)
    codes = cv2.filter2D(boundary, -1, _NEIGHBOURS, borderType=cv2.BORDER_CONSTANT)
    return float(_LENGTHS[codes[boundary > 0]].sum())


def _measure_micrometres(nucleus: Nucleus, row: dict[str, float], size: PixelSize) -> dict[str, float]:
    measured = {
        "area_um2": row["area"] * size.x * size.y,
        "centroid_x_um": row["centroid_x"] * size.x,
        "centroid_y_um": row["centroid_y"] * size.y,
    }
    if size.is_square:
        return measured | {
            f"{name}_um": row[name] * size.x for name in ("major_axis", "minor_axis", "perimeter")
        }
    rows, columns = np.nonzero(nucleus.mask)
    major, minor = _axes(rows, columns, (size.y, size.x))
    return measured | {"major_axis_um": major, "minor_axis_um": minor}
