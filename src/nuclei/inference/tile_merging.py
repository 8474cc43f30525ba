"""Nuclei of maps too large to be segmented at once: tile by tile, each nucleus taken from one tile alone.

A tile is segmented with a margin around it, and owns the nuclei whose first pixel (of the topmost row, the leftmost)
lies in it. Where a group of touching nuclei fits into the margin, all tiles see it alike and the result is that of
the whole image; of larger groups two tiles may differ, then the first has the pixels. What is judged by all nuclei of
the image (a nucleus small among the others) is judged at the end.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from nuclei.inference.tiling import list_tiles
from nuclei.io.files import release
from nuclei.postprocessing.label_ops import fill_holes, renumber
from nuclei.postprocessing.parameters import Parameters
from nuclei.postprocessing.watershed import (
    Instances,
    certainty_from_histogram,
    filter_instances,
    find_instances,
    foreground_histogram,
    measure_instances,
)

WHOLE = 2**24
"""Maps of up to so many pixels are segmented whole."""
SIDE, MARGIN = 1024, 256


def segment_tiles(
    maps: npt.NDArray[np.uint8],
    parameters: Parameters,
    out: npt.NDArray[np.int32],
    side: int = SIDE,
    margin: int = MARGIN,
) -> int:
    """Writes the label map of the maps (3, H, W) into `out` (H, W), which is all 0; both may lie on a disk.

    Returns the number of nuclei.
    """
    shape = (out.shape[0], out.shape[1])
    counts = sum(foreground_histogram(maps[(slice(None), *tile.slices)]) for tile in list_tiles(shape, side))
    parameters = parameters.at(certainty_from_histogram(np.asarray(counts)))
    release(maps)
    measured: list[npt.NDArray[Any]] = [np.zeros((1, 3))]
    count = 0
    for tile in list_tiles(shape, side):
        read = tile.grow(margin, shape)
        grown = find_instances(np.ascontiguousarray(maps[(slice(None), *read.slices)]), parameters)
        part = out[read.slices]
        numbers = _own(grown, tile.inside(read), part)
        measures = measure_instances(grown)[: len(numbers)][numbers > 0]
        numbers[numbers > 0] += count
        labels = numbers[grown.labels]
        rows, columns = np.divmod(grown.indices, grown.shape[1])
        free = (labels > 0) & (part[rows, columns] == 0)
        part[rows[free], columns[free]] = labels[free]
        measured.append(measures)
        count += len(measures)
        release(maps)
        release(out)
    numbers = renumber(filter_instances(np.concatenate(measured), parameters))
    for tile in list_tiles(shape, side):
        out[tile.slices] = numbers[out[tile.slices]]
        release(out)
    for tile in list_tiles(shape, side):
        read = tile.grow(margin, shape)
        filled = fill_holes(np.array(out[read.slices]))
        out[tile.slices] = filled[tile.inside(read).slices]
        release(out)
    return int(numbers.max(initial=0))


def _own(grown: Instances, tile: Any, part: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """New number from 1 of each label that the tile owns, 0 of the others: begun elsewhere, or mostly taken."""
    count = int(grown.labels.max(initial=0)) + 1
    present, first = np.unique(grown.labels, return_index=True)
    rows, columns = np.divmod(grown.indices, grown.shape[1])
    begins = (rows >= tile.top) & (rows < tile.bottom) & (columns >= tile.left) & (columns < tile.right)
    keep = np.zeros(count, bool)
    keep[present] = begins[first]
    taken = np.bincount(grown.labels, weights=part[rows, columns] > 0, minlength=count)
    keep &= taken <= np.bincount(grown.labels, minlength=count) / 2
    return renumber(keep)
