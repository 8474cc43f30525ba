"""Measurements of segmented nuclei: area, position, shape and intensity."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nuclei.arrays import Float64Array, Int64Array, Labels
from nuclei.io.files import release
from nuclei.io.picture import PixelSize
from nuclei.segmentation.flat_masks import FlatMasks, flatten_masks

BATCH, BATCH_PIXELS = 1000, 2**22
"""Nuclei, and pixels of their boxes, that are measured and outlined at once."""
_RELEASED = 1000
"""Nuclei after which the parts of the image that were read for them leave the memory again."""


def _lengths() -> npt.NDArray[np.float64]:
    """Length of the line through a boundary pixel, (64,), by how the line goes on from it.

    The index is 1, plus 2 for each neighbour on the boundary beside, above or below, plus 10 for
    each diagonal one.
    """
    lengths = np.zeros(64)
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


def list_batches(label_map: Labels, pixels: npt.NDArray[Any]) -> Iterator[list[Nucleus]]:
    """The nuclei in batches: NumPy's calls cost little for each, and the memory is bounded."""
    batch: list[Nucleus] = []
    size = 0
    for nucleus in list_nuclei(label_map, pixels):
        batch.append(nucleus)
        size += nucleus.mask.size
        if len(batch) == BATCH or size >= BATCH_PIXELS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def measure(
    nuclei: Sequence[Nucleus], pixel_size: PixelSize | None, flat: FlatMasks | None = None
) -> list[dict[str, float]]:
    """Measurements in pixels, and in micrometres where the size of a pixel is known; coordinates of pixels' middles.

    Where pixels are not square there is no perimeter in micrometres: its estimate holds for square
    ones. `flat` are the masks of the nuclei, which are flattened here where it is absent.
    """
    if not nuclei:
        return []
    flat = flat or flatten_masks([nucleus.mask for nucleus in nuclei])
    rows, columns = flat.locate(flat.indices, flat.owners)
    areas = np.bincount(flat.owners).astype(np.float64)
    middles = [np.bincount(flat.owners, axis) / areas for axis in (rows, columns)]
    away = [axis - middle[flat.owners] for axis, middle in zip((rows, columns), middles, strict=True)]
    major, minor = _axes(flat.owners, areas, *away)
    measured = {
        "label": np.array([nucleus.label for nucleus in nuclei]),
        "area": areas,
        "centroid_x": middles[1] + [nucleus.left for nucleus in nuclei],
        "centroid_y": middles[0] + [nucleus.top for nucleus in nuclei],
        "major_axis": major,
        "minor_axis": minor,
        "perimeter": _perimeters(flat),
        "eccentricity": np.sqrt(1 - np.divide(minor, major, out=np.ones_like(minor), where=major > 0) ** 2),
    }
    if pixel_size:
        axes = _axes(flat.owners, areas, away[0] * pixel_size.y, away[1] * pixel_size.x)
        measured |= _measure_micrometres(measured, axes, pixel_size)
    measured |= _measure_intensities(nuclei, flat.owners, areas)
    columns_of_rows = (each.tolist() for each in measured.values())
    return [dict(zip(measured, row, strict=True)) for row in zip(*columns_of_rows, strict=True)]


def _axes(
    owners: Int64Array, areas: Float64Array, y: Float64Array, x: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Axes of the ellipses with the same second moments, the longer ones first; y and x from the middles.

    The moments are those of points in the middles of the pixels.
    """
    yy, xx, xy = (np.bincount(owners, one * other) / areas for one, other in ((y, y), (x, x), (x, y)))
    middle, distance = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
    return 4 * np.sqrt(middle + distance), 4 * np.sqrt(np.maximum(0.0, middle - distance))


def _perimeters(flat: FlatMasks) -> Float64Array:
    """Lengths of the lines through the middles of the boundaries' pixels, by their neighbours.

    Source: Benkrid and Crookes, Design and FPGA Implementation of a Perimeter Estimator (2000), as in
    scikit-image.
    """
    pixels, steps, inside = flat.indices, flat.steps, flat.inside
    surrounded = inside[pixels - 1] & inside[pixels + 1] & inside[pixels - steps] & inside[pixels + steps]
    boundary = inside.astype(np.int64)
    boundary[pixels[surrounded]] = 0
    pixels, steps, owners = (each[~surrounded] for each in (pixels, steps, flat.owners))
    beside = (-1, 1, -steps, steps)
    diagonal = (-steps - 1, -steps + 1, steps - 1, steps + 1)
    codes = 1 + 2 * sum(boundary[pixels + step] for step in beside)
    codes += 10 * sum(boundary[pixels + step] for step in diagonal)
    return np.bincount(owners, _LENGTHS[codes], len(flat.offsets)).astype(np.float64)


def _measure_intensities(
    nuclei: Sequence[Nucleus], owners: Int64Array, areas: Float64Array
) -> dict[str, Float64Array]:
    inside = np.concatenate([nucleus.pixels[nucleus.mask] for nucleus in nuclei])
    channels = [inside] if inside.ndim == 1 else list(inside.T[:3])
    begins = np.flatnonzero(np.diff(owners, prepend=-1))
    means = [np.bincount(owners, channel) / areas for channel in channels]
    extremes = [
        [extreme.reduceat(channel, begins) for channel in channels] for extreme in (np.minimum, np.maximum)
    ]
    names = ("",) if inside.ndim == 1 else ("_red", "_green", "_blue")
    return {
        f"intensity_{statistic}{name}": values.astype(np.float64)
        for statistic, each in zip(("mean", "min", "max"), (means, *extremes), strict=True)
        for name, values in zip(names, each, strict=False)
    }


def _measure_micrometres(
    measured: dict[str, Any], axes: tuple[Float64Array, Float64Array], size: PixelSize
) -> dict[str, Float64Array]:
    found = {
        "area_um2": measured["area"] * size.x * size.y,
        "centroid_x_um": measured["centroid_x"] * size.x,
        "centroid_y_um": measured["centroid_y"] * size.y,
    }
    if size.is_square:
        names = ("major_axis", "minor_axis", "perimeter")
        return found | {f"{name}_um": measured[name] * size.x for name in names}
    return found | {"major_axis_um": axes[0], "minor_axis_um": axes[1]}
