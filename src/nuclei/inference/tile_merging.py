"""Segments large maps tile by tile and merges the label maps: each nucleus comes from one tile.

A tile is segmented with a margin, and owns the nuclei whose first pixel (leftmost of the topmost
row) is in it. If a group of touching nuclei fits into the margin, all tiles segment it in the same
way, as the whole image would be; for larger groups tiles may differ, and the first tile keeps the
pixels. Criteria that depend on all nuclei of the image (small relative to the others) are applied
at the end.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from nuclei.inference.tiling import Box, list_tiles
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
"""Maps of up to this many pixels are segmented whole."""
SIDE, MARGIN = 1024, 256
"""Pixels of a tile's side and of its margin."""


def segment_tiles(
    maps: npt.NDArray[np.uint8],
    parameters: Parameters,
    out: npt.NDArray[np.int32],
    side: int = SIDE,
    margin: int = MARGIN,
) -> int:
    """Writes the label map of the maps (3, H, W) into `out` (H, W), which is all 0; both may be
    memory-mapped.

    Returns the number of nuclei.
    """
    tiles = list_tiles((out.shape[0], out.shape[1]), side)
    counts = sum(foreground_histogram(maps[(slice(None), *tile.slices)]) for tile in tiles)
    parameters = parameters.at(certainty_from_histogram(np.asarray(counts)))
    release(maps)
    measures = _label_tiles(maps, parameters, out, tiles, margin)
    numbers = renumber(filter_instances(measures, parameters))
    for tile in tiles:
        out[tile.slices] = numbers[out[tile.slices]]
        release(out)
    for tile in tiles:
        read = tile.grow(margin, out.shape)
        filled = fill_holes(np.array(out[read.slices]))
        out[tile.slices] = filled[tile.inside(read).slices]
        release(out)
    return int(numbers.max(initial=0))


def _label_tiles(
    maps: npt.NDArray[np.uint8],
    parameters: Parameters,
    out: npt.NDArray[np.int32],
    tiles: list[Box],
    margin: int,
) -> npt.NDArray[Any]:
    """Writes the nuclei of each tile into `out`, numbered on; returns their measures, one row per
    label from 0 on.
    """
    measured: list[npt.NDArray[Any]] = [np.zeros((1, 3))]
    count = 0
    for tile in tiles:
        read = tile.grow(margin, out.shape)
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
    return np.concatenate(measured)


def _own(grown: Instances, tile: Box, part: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """New number, from 1, of each label that the tile owns; 0 of labels that start elsewhere or are
    mostly taken.
    """
    count = int(grown.labels.max(initial=0)) + 1
    present, first = np.unique(grown.labels, return_index=True)
    rows, columns = np.divmod(grown.indices, grown.shape[1])
    begins = (rows >= tile.top) & (rows < tile.bottom) & (columns >= tile.left) & (columns < tile.right)
    keep = np.zeros(count, bool)
    keep[present] = begins[first]
    taken = np.bincount(grown.labels, weights=part[rows, columns] > 0, minlength=count)
    keep &= taken <= np.bincount(grown.labels, minlength=count) / 2
    return renumber(keep)
