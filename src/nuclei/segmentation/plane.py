"""One plane from its pixels to its label map, whole or in tiles."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from nuclei.arrays import LabelMap, Pixels
from nuclei.inference import tile_merging, tiling
from nuclei.inference.weights import Weights
from nuclei.io.files import release
from nuclei.io.picture import allocate
from nuclei.postprocessing.label_ops import count_areas, keep_labels
from nuclei.postprocessing.watershed import segment_maps
from nuclei.progress import show_progress

_ROWS = 1024


def segment_plane(
    pixels: Pixels,
    weights: Weights,
    scratch: Path | None = None,
    outside: npt.NDArray[np.bool_] | None = None,
    scale: float = 1.0,
) -> tuple[LabelMap, int]:
    """Label map (H, W) int32 of an image and its number of nuclei; large arrays lie in `scratch`.

    Nothing is found where `outside` (H, W) is true. The network sees the image enlarged by `scale`.
    """
    height, width = pixels.shape[:2]
    if scale == 1:
        label_map, count = _segment(pixels, weights, scratch)
    else:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        source = pixels if pixels.dtype.itemsize <= 2 else pixels.astype(np.float32)
        resized = cv2.resize(np.ascontiguousarray(source), size, interpolation=cv2.INTER_CUBIC)
        enlarged, _ = _segment(np.asarray(resized), weights, scratch)
        rows, columns = (((np.arange(n) + 0.5) * scale).astype(int) for n in (height, width))
        label_map = enlarged[np.minimum(rows, size[1] - 1)][:, np.minimum(columns, size[0] - 1)]
        count = keep_labels(label_map, count_areas(label_map) > 0)
    if outside is not None:
        for top in range(0, height, _ROWS):
            label_map[top : top + _ROWS][outside[top : top + _ROWS]] = 0
        count = keep_labels(label_map, count_areas(label_map) > 0)
    return label_map, count


def _segment(pixels: Pixels, weights: Weights, scratch: Path | None) -> tuple[LabelMap, int]:
    shape = (pixels.shape[0], pixels.shape[1])
    if shape[0] * shape[1] <= tiling.WHOLE:
        label_map = segment_maps(weights(pixels), weights.parameters)
        return label_map, int(label_map.max(initial=0))
    maps = allocate((3, *shape), np.uint8, scratch, "maps")
    tiles = tiling.predict_tiles(weights.predictors, pixels, weights=weights.weights)
    count = len(tiling.list_tiles(shape))
    for tile, part in show_progress(tiles, "segment  tiles of one image", "tiles", count, summary=False):
        maps[(slice(None), *tile.slices)] = part
        release(maps)
        release(pixels)
    if shape[0] * shape[1] <= tile_merging.WHOLE:
        label_map = segment_maps(maps, weights.parameters)
        return label_map, int(label_map.max(initial=0))
    label_map = allocate(shape, np.int32, scratch, "labels")
    return label_map, tile_merging.segment_tiles(maps, weights.parameters, label_map)
