"""Peers: loops as in notebooks and functions of libraries, with the same results as ours."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from scipy.ndimage import binary_dilation
from skimage.io import imread
from skimage.measure import label, regionprops
from skimage.segmentation import watershed

from nuclei.arrays import BORDER, CORE, FOREGROUND
from nuclei.config import Config
from nuclei.evaluation.metric import THRESHOLDS
from nuclei.postprocessing.parameters import Parameters

# These libraries count an IoU equal to the threshold as a hit, the competition does not.
ABOVE = [threshold + 1e-6 for threshold in THRESHOLDS]


def notebook_runs(label_map: np.ndarray) -> list[str]:
    """Run lengths mask by mask, pixel by pixel, as the competition's public notebooks have it."""
    rows = []
    for number in range(1, label_map.max() + 1):
        pixels = np.where((label_map == number).T.flatten() == 1)[0]
        runs: list[int] = []
        previous = -2
        for pixel in pixels:
            if pixel > previous + 1:
                runs.extend((pixel + 1, 0))
            runs[-1] += 1
            previous = pixel
        rows.append(" ".join(str(value) for value in runs))
    return rows


def coco_runs(label_map: np.ndarray) -> list[dict[str, Any]]:
    """pycocotools' compressed run lengths of all nuclei."""
    from pycocotools import mask

    numbers = np.arange(1, label_map.max() + 1)
    return mask.encode(np.asfortranarray((label_map[..., None] == numbers).astype(np.uint8)))


def stardist_precision(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    from stardist.matching import matching

    return np.array([found.accuracy for found in matching(truth, predicted, thresh=ABOVE)])


def cellpose_precision(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    from cellpose.metrics import average_precision

    return average_precision(truth, predicted, threshold=ABOVE)[0]


def read_picture(folder: Path) -> np.ndarray:
    """The RGB image of a folder of the archive, (H, W, 3) uint8."""
    return np.asarray(imread(next((folder / "images").glob("*.png")))[..., :3])


def read_masks(folder: Path) -> np.ndarray:
    """Label map of an image of the archive, read mask by mask; the later one wins an overlap."""
    label_map: np.ndarray | None = None
    for number, path in enumerate(sorted((folder / "masks").glob("*.png")), start=1):
        mask = imread(path)
        mask = mask if mask.ndim == 2 else mask[..., 0]
        label_map = np.zeros(mask.shape, np.int32) if label_map is None else label_map
        label_map[mask > 0] = number
    assert label_map is not None
    return label_map


def segment_by_regions(maps: np.ndarray, parameters: Parameters) -> np.ndarray:
    """The same rules as `postprocessing.segment_maps`, region by region with scikit-image."""
    foreground = maps[FOREGROUND]
    likely = foreground[foreground >= 128] / 255
    parameters = parameters.at(likely.mean() if likely.size else 1.0)
    mask = foreground >= np.ceil(parameters.foreground_threshold * 255 - 1e-9)
    seed_map = cv2.addWeighted(maps[CORE], 1.0, maps[BORDER], -parameters.border_weight, 0.0) * mask
    seeds = _seeds_by_regions(seed_map, parameters)
    following = seeds.max() + 1
    for piece in regionprops(label(mask, connectivity=1)):
        place = tuple(piece.coords.T)
        if not seeds[place].any():
            seeds[place] = following
            following += 1
    label_map = watershed(-seed_map.astype(np.float32), seeds, mask=mask)
    areas = [region.area for region in regionprops(label_map)]
    large = [area for area in areas if area >= max(parameters.min_area, 1)]
    median = np.median(large) if large else 0
    for region in regionprops(label_map):
        place = tuple(region.coords.T)
        small = region.area < max(parameters.min_area, 1) or region.area < parameters.min_relative_area * median
        faint = foreground[place].mean() < parameters.min_mean_probability * 255
        if small or faint or seed_map[place].max() < parameters.min_seed_peak * 255:
            label_map[place] = 0
    return _fill_by_regions(label_map)


def _seeds_by_regions(seed_map: np.ndarray, parameters: Parameters) -> np.ndarray:
    def islands(level: int) -> np.ndarray:
        threshold = parameters.seed_threshold + 0.1 * level
        return label(seed_map >= np.ceil(max(threshold, 1 / 255) * 255 - 1e-9), connectivity=1)

    seeds = islands(0)
    following = seeds.max() + 1
    for level in range(1, parameters.split_levels + 1):
        if parameters.seed_threshold + 0.1 * level > 1:
            break
        parts = islands(level)
        for seed in regionprops(seeds):
            place = tuple(seed.coords.T)
            numbers, areas = np.unique(parts[place], return_counts=True)
            counts = (
                (numbers > 0)
                & (areas >= parameters.min_seed_area)
                & (areas >= parameters.min_split_fraction * seed.area)
            )
            if counts.sum() < 2:
                continue
            split = np.zeros(len(seed.coords), seeds.dtype)
            for number in numbers[counts]:
                split[parts[place] == number] = following
                following += 1
            seeds[place] = split
    for seed in regionprops(seeds):
        if seed.area < max(parameters.min_seed_area, 1):
            seeds[tuple(seed.coords.T)] = 0
    return seeds


def _fill_by_regions(label_map: np.ndarray) -> np.ndarray:
    height, width = label_map.shape
    gaps = label(label_map == 0, connectivity=1)
    filled = label_map.copy()
    for gap in regionprops(gaps):
        top, left, bottom, right = gap.bbox
        if top == 0 or left == 0 or bottom == height or right == width:
            continue
        box = slice(top - 1, bottom + 1), slice(left - 1, right + 1)
        inside = gaps[box] == gap.label
        around = np.unique(label_map[box][binary_dilation(inside) & ~inside])
        around = around[around > 0]
        if len(around) == 1:
            filled[box][inside] = around[0]
    return filled


def predict_plainly(model: torch.nn.Module, pixels_CHW: torch.Tensor, config: Config) -> np.ndarray:
    """Maps of an image: eight flips one after the other, float32, contiguous."""
    from nuclei.models.activation import activate

    total = torch.zeros(3, *pixels_CHW.shape[1:], device=pixels_CHW.device)
    with torch.no_grad():
        for turned in (False, True):
            for mirrors in ([], [2], [1], [1, 2]):
                view = pixels_CHW.transpose(1, 2) if turned else pixels_CHW
                answer = activate(model(view.flip(mirrors)[None].contiguous()), config.target)[0].flip(mirrors)
                total += answer.transpose(1, 2) if turned else answer
    return np.round(total.cpu().numpy() / 8 * 255).astype(np.uint8)
