"""From probability maps to nuclei: seeds, a watershed between them, and the removal of what is no nucleus.

The maps of an image are (3, H, W) uint8, a probability times 255, with the channels FOREGROUND (inside any nucleus),
BORDER (between touching nuclei) and CORE (energy: 1 in the middle of a nucleus, 0 at its rim, or the body's
probability outside the border). The seed map is the core less the border: its islands are the seeds.

Source: watershed on body less border as in the competition's first place, Buslaev, Seferbekov and Durnov (2018).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt
from skimage.segmentation import watershed

FOREGROUND, BORDER, CORE = 0, 1, 2
CHANNELS = 3

LabelMap = npt.NDArray[np.int32]
Labels = npt.NDArray[Any]
UInt8Array = npt.NDArray[np.uint8]

# Diagonal neighbours do not connect: nuclei that touch at a corner are two.
_CONNECTIVITY = 4
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
_SPLIT_STEP = 0.1
_PROBABILITIES = ("foreground", "seed", "split_area", "relative_area", "confidence", "peak")


@dataclass(frozen=True)
class Parameters:
    """How maps become nuclei. Thresholds are probabilities and hold from the value on; areas are pixels.

    The defaults did well on out-of-fold maps of three small UNets; `tuning` finds those of an experiment.
    """

    foreground: float = 0.6
    """Foreground from which on a pixel belongs to a nucleus."""
    seed: float = 0.3
    """Value of the seed map from which on a pixel belongs to a seed."""
    border: float = 1.0
    """How many times the border is subtracted from the core to give the seed map."""
    split_levels: int = 2
    """How many higher levels, 0.1 apart, are tried to split a seed in two."""
    split_area: float = 0.2
    """A part of a seed at a higher level counts if it has this share of the seed's area; two must count."""
    seed_area: int = 20
    """Smallest seed; foreground in which no seed remains is one nucleus."""
    area: int = 20
    """Smallest nucleus."""
    relative_area: float = 0.1
    """Smallest nucleus as a share of the median area of the image's nuclei."""
    confidence: float = 0.8
    """Smallest mean foreground of a nucleus."""
    peak: float = 0.2
    """Smallest maximum of the seed map in a nucleus."""

    def __post_init__(self) -> None:
        for name in _PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"parameter {name} is {getattr(self, name)}; give a value from 0 to 1")
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"parameter {field.name} is {getattr(self, field.name)}; give one of 0 or more")

    def to_dict(self) -> dict[str, float | int]:
        """The values by name, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The parameters of a table by name, all of them given.

        Raises:
            ValueError: names missing or unknown; a value that is no number or lies outside its range.
        """
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            raise ValueError(
                f"post-processing parameters: missing {sorted(expected - set(values))}, "
                f"unknown {sorted(set(values) - expected)}; run the tuning again"
            )
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"post-processing parameter {name} is {value!r}; give a number")
        return cls(**values)


def segment_maps(maps: UInt8Array, parameters: Parameters) -> LabelMap:
    """Label map (H, W) int32 of the maps (3, H, W) uint8, numbered 1..N; all 0 where there is no nucleus.

    Raises:
        ValueError: maps of another shape or type.
    """
    if maps.ndim != 3 or maps.shape[0] != CHANNELS or maps.dtype != np.uint8:
        raise ValueError(f"expected maps ({CHANNELS}, H, W) uint8, got {maps.shape} {maps.dtype}; predict again")
    foreground = maps[FOREGROUND]
    mask = _reaches(foreground, parameters.foreground)
    seed_map = cv2.addWeighted(maps[CORE], 1.0, maps[BORDER], -parameters.border, 0.0)
    # A seed outside the foreground is none, and inside it lies in one connected piece of it.
    seed_map = np.asarray(cv2.bitwise_and(seed_map, seed_map, mask=mask), np.uint8)
    label_map = _grow_seeds(_find_seeds(seed_map, parameters), seed_map, mask)
    return _fill_holes(_drop_false(label_map, foreground, seed_map, parameters))


def _reaches(channel: UInt8Array, probability: float) -> UInt8Array:
    """1 where the channel has at least the probability, 0 elsewhere."""
    return (channel >= int(np.ceil(probability * 255 - 1e-9))).astype(np.uint8)


def _find_seeds(seed_map: UInt8Array, parameters: Parameters) -> LabelMap:
    """Seeds 1..S: islands of the seed map, each replaced by its parts at a higher level where it falls into several.

    One level alone either joins nuclei or misses the faint ones. A part must have its share of the area, so the
    noise on a summit makes no second seed.
    """
    count, seeds, stats, _ = cv2.connectedComponentsWithStats(
        _reaches(seed_map, max(parameters.seed, 1 / 255)), connectivity=_CONNECTIVITY
    )
    areas = stats[:, cv2.CC_STAT_AREA]
    areas[0] = 0
    for level in range(1, parameters.split_levels + 1):
        threshold = parameters.seed + level * _SPLIT_STEP
        if threshold > 1:
            break
        part_count, parts, stats, _ = cv2.connectedComponentsWithStats(
            _reaches(seed_map, threshold), connectivity=_CONNECTIVITY
        )
        part_areas = stats[:, cv2.CC_STAT_AREA]
        seed_of_part = _labels_under(parts, seeds, part_count)
        counts = (part_areas >= parameters.seed_area) & (part_areas >= parameters.split_area * areas[seed_of_part])
        counts &= seed_of_part > 0
        is_split = np.bincount(seed_of_part[counts], minlength=count) >= 2
        if not is_split.any():
            continue
        new = np.flatnonzero(counts & is_split[seed_of_part])
        number_of_part = np.zeros(part_count, np.int32)
        number_of_part[new] = count + np.arange(len(new))
        areas = np.concatenate([np.where(is_split, 0, areas), part_areas[new]])
        seeds = np.where(number_of_part[parts] > 0, number_of_part[parts], np.where(is_split[seeds], 0, seeds))
        count += len(new)
    return _keep(np.asarray(seeds, np.int32), areas >= max(parameters.seed_area, 1))


def _grow_seeds(seeds: LabelMap, seed_map: UInt8Array, mask: UInt8Array) -> LabelMap:
    """Each pixel of the mask under its nucleus: a connected piece with one seed or none is one nucleus.

    Only pieces with several seeds need the watershed, which is most of the time it would take.
    """
    piece_count, pieces = cv2.connectedComponents(mask, connectivity=_CONNECTIVITY)
    seed_count = int(seeds.max()) + 1
    piece_of_seed = _labels_under(seeds, pieces, seed_count)
    seeds_of_piece = np.bincount(piece_of_seed[1:], minlength=piece_count)
    number_of_piece = np.zeros(piece_count, np.int32)
    number_of_piece[piece_of_seed[1:]] = np.arange(1, seed_count)
    seedless = np.flatnonzero(seeds_of_piece == 0)
    number_of_piece[seedless] = seed_count + np.arange(len(seedless))
    number_of_piece[seeds_of_piece > 1] = 0
    number_of_piece[0] = 0
    label_map = number_of_piece[pieces]
    is_contested = (seeds_of_piece > 1)[pieces]
    if is_contested.any():
        divided = watershed(-seed_map.astype(np.float32), np.where(is_contested, seeds, 0), mask=is_contested)
        label_map = np.where(is_contested, divided, label_map)
    return np.asarray(label_map, np.int32)


def _drop_false(label_map: LabelMap, foreground: UInt8Array, seed_map: UInt8Array, parameters: Parameters) -> LabelMap:
    """The label map without nuclei that are small, small among their neighbours, or faint."""
    inside = np.flatnonzero(label_map)
    if not len(inside):
        return label_map
    labels = label_map.ravel()[inside]
    areas = np.bincount(labels)
    keep = areas >= max(parameters.area, 1)
    if keep.any():
        keep &= areas >= parameters.relative_area * np.median(areas[keep])
    keep &= np.bincount(labels, weights=foreground.ravel()[inside]) >= parameters.confidence * 255 * areas
    peaks = np.zeros(len(areas), np.uint8)
    np.maximum.at(peaks, labels, seed_map.ravel()[inside])
    return _keep(label_map, keep & (peaks >= parameters.peak * 255))


def _fill_holes(label_map: LabelMap) -> LabelMap:
    """Background that one nucleus alone encloses becomes that nucleus; what several enclose stays background."""
    count, gaps = cv2.connectedComponents((label_map == 0).astype(np.uint8), connectivity=_CONNECTIVITY)
    if count <= 2:
        return label_map
    numbers = label_map.astype(np.float32)
    highest = cv2.dilate(numbers, _CROSS)
    lowest = cv2.erode(np.where(label_map == 0, np.float32(np.inf), numbers), _CROSS)
    at_rim = (gaps > 0) & (highest > 0)
    above = np.zeros(count, np.float32)
    below = np.full(count, np.inf, np.float32)
    np.maximum.at(above, gaps[at_rim], highest[at_rim])
    np.minimum.at(below, gaps[at_rim], lowest[at_rim])
    filled = np.where(above == below, above, 0).astype(np.int32)
    # what reaches the edge of the image is no hole
    for edge in (gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]):
        filled[edge] = 0
    return np.asarray(label_map + filled[gaps], np.int32)


def _labels_under(islands: Labels, label_map: Labels, count: int) -> npt.NDArray[np.int64]:
    """Label that each of `count` islands (0 is none) lies on, one for each as an island lies on one label alone."""
    inside = np.flatnonzero(islands)
    labels = np.zeros(count, np.int64)
    labels[islands.ravel()[inside]] = label_map.ravel()[inside]
    return labels


def _keep(label_map: LabelMap, keep: npt.NDArray[np.bool_]) -> LabelMap:
    """The labels to keep, numbered anew from 1 in their order; background is never kept."""
    numbers = np.zeros(len(keep), np.int32)
    kept = np.flatnonzero(keep)
    kept = kept[kept > 0]
    numbers[kept] = np.arange(1, len(kept) + 1)
    return numbers[label_map]
