"""From probability maps to nuclei: seeds, a watershed between them, and the removal of what is no nucleus.

The maps of an image are (3, H, W) uint8, a probability times 255, with the channels FOREGROUND (inside any nucleus),
BORDER (between touching nuclei) and CORE (energy: 1 in the middle of a nucleus, 0 at its rim, or the body's
probability outside the border). The seed map is the core less the border: its islands are the seeds.

Of images unlike those that it was trained on a network is less sure throughout, and thresholds that fit the others find
little there. So each image has a certainty, and thresholds are shares of it; and at the rim of a nucleus there may be
another one, a share of the nucleus's own (`Parameters.rim`).

Source: watershed on body less border as in the competition's first place, Buslaev, Seferbekov and Durnov (2018).
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from skimage.segmentation import watershed

from nuclei.arrays import BORDER, CHANNELS, CORE, FOREGROUND, LabelMap, Labels, UInt8Array
from nuclei.errors import UserError
from nuclei.postprocessing.label_ops import Places, fill_holes, label_islands, renumber
from nuclei.postprocessing.parameters import Parameters

_SPLIT_STEP = 0.1


@dataclass(frozen=True)
class Ground:
    """Where nuclei may grow: the foreground as a mask (H, W) and as places, and the seed map (H, W), 0 elsewhere."""

    mask: UInt8Array
    seed_map: UInt8Array
    places: Places


@dataclass(frozen=True)
class Grown:
    """Nuclei before the false ones are dropped, an entry a pixel: most pixels are background and have none."""

    shape: tuple[int, ...]
    places: Places
    labels: Labels
    foreground: UInt8Array
    seed_map: UInt8Array


def segment_maps(maps: UInt8Array, parameters: Parameters) -> LabelMap:
    """Label map (H, W) int32 of the maps (3, H, W) uint8, numbered 1..N; all 0 where there is no nucleus.

    Raises:
        UserError: maps of another shape or type.
    """
    _check(maps)
    parameters = parameters.at(measure_certainty(maps))
    grown = grow_nuclei(maps, parameters)
    return draw_nuclei(grown, are_nuclei(measure_nuclei(grown), parameters))


def count_values(maps: UInt8Array) -> npt.NDArray[np.int64]:
    """How many pixels have each of the foreground's values, (256,); the counts of parts of an image add up."""
    # float32, which counts exactly up to 2 ** 24
    counts = cv2.calcHist([maps[FOREGROUND]], [0], None, [256], [0, 256])
    return np.asarray(counts.ravel(), np.int64)


def measure_certainty(maps: UInt8Array) -> float:
    """Mean foreground, 0.5 to 1, of the pixels that are rather foreground than not; 1 where there are none."""
    return certainty_of_counts(count_values(maps))


def certainty_of_counts(counts: npt.NDArray[np.int64]) -> float:
    """`measure_certainty` of an image whose foreground has its values so often, (256,)."""
    values = np.arange(len(counts)) / 255
    likely = np.where(values >= 0.5, counts, 0)
    return float(np.average(values, weights=likely)) if likely.any() else 1.0


def grow_nuclei(maps: UInt8Array, parameters: Parameters) -> Grown:
    """The first half of `segment_maps`, which heeds all parameters but those of `DROPPING`.

    Here and below the thresholds of `parameters` are probabilities already (`Parameters.at`).
    """
    ground = lay_ground(maps, parameters)
    return trim_nuclei(grow_seeds(maps, ground, find_seeds(ground, parameters)), parameters.rim)


def lay_ground(maps: UInt8Array, parameters: Parameters) -> Ground:
    """The ground of the maps; it heeds `foreground` and `border` alone."""
    mask = _reaches(maps[FOREGROUND], parameters.foreground)
    seed_map = cv2.addWeighted(maps[CORE], 1.0, maps[BORDER], -parameters.border, 0.0)
    # A seed outside the foreground is none, and inside it lies in one connected piece of it.
    seed_map = np.asarray(cv2.bitwise_and(seed_map, seed_map, mask=mask), np.uint8)
    return Ground(mask, seed_map, np.flatnonzero(mask.view(bool)))


def grow_seeds(maps: UInt8Array, ground: Ground, seeds: LabelMap) -> Grown:
    """The nuclei of seeds (H, W), all of which lie on the ground; it heeds no parameter."""
    places = ground.places
    labels = _spread(seeds, ground)
    return Grown(seeds.shape, places, labels, maps[FOREGROUND].ravel()[places], ground.seed_map.ravel()[places])


def trim_nuclei(grown: Grown, rim: float) -> Grown:
    """The nuclei without their pixels below a share of the mean foreground of each.

    A network that is less sure of a nucleus than of others is so at its rim as well, and where it is surer the rim is
    steeper: one threshold for all makes faint nuclei too small and bright ones too large.
    """
    if not rim:
        return grown
    means = np.bincount(grown.labels, grown.foreground, minlength=1) / np.bincount(grown.labels, minlength=1).clip(1)
    keep = grown.foreground >= (rim * means)[grown.labels]
    return Grown(grown.shape, grown.places[keep], grown.labels[keep], grown.foreground[keep], grown.seed_map[keep])


def draw_nuclei(grown: Grown, keep: npt.NDArray[np.bool_]) -> LabelMap:
    """Label map of the grown nuclei whose label is to keep, numbered anew, their holes filled."""
    return fill_holes(_draw(renumber(keep)[grown.labels], grown.places, grown.shape))


def _check(maps: UInt8Array) -> None:
    if maps.ndim != 3 or maps.shape[0] != CHANNELS or maps.dtype != np.uint8:
        raise UserError(f"expected maps ({CHANNELS}, H, W) uint8, got {maps.shape} {maps.dtype}; predict again")


def _reaches(channel: UInt8Array, probability: float) -> UInt8Array:
    """1 where the channel has at least the probability, 0 elsewhere."""
    return (channel >= int(np.ceil(probability * 255 - 1e-9))).astype(np.uint8)


def find_seeds(ground: Ground, parameters: Parameters) -> LabelMap:
    """Seeds 1..S (H, W): islands of the seed map, each replaced by its parts at a higher level where there are several.

    One level alone either joins nuclei or misses the faint ones. A part must have its share of the area, so the
    noise on a summit makes no second seed.
    """
    seed_map = ground.seed_map
    islands = _reaches(seed_map, max(parameters.seed, 1 / 255))
    places = np.flatnonzero(islands.view(bool))
    count, seeds = label_islands(islands, places)
    areas = np.bincount(seeds, minlength=count)
    for level in range(1, parameters.split_levels + 1):
        threshold = parameters.seed + level * _SPLIT_STEP
        if threshold > 1:
            break
        part_count, parts = label_islands(_reaches(seed_map, threshold), places)
        part_areas = np.bincount(parts, minlength=part_count)
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
    return _draw(renumber(areas >= max(parameters.seed_area, 1))[seeds], places, seed_map.shape)


def _spread(seeds: LabelMap, ground: Ground) -> Labels:
    """The nucleus of each pixel of the mask: a connected piece with one seed or none is one nucleus.

    Only pieces with several seeds need the watershed, which is most of the time it would take.
    """
    places = ground.places
    piece_count, pieces = label_islands(ground.mask, places)
    seed_count = int(seeds.max(initial=0)) + 1
    piece_of_seed = _labels_under(seeds.ravel()[places], pieces, seed_count)
    seeds_of_piece = np.bincount(piece_of_seed[1:], minlength=piece_count)
    number_of_piece = np.zeros(piece_count, np.int32)
    number_of_piece[piece_of_seed[1:]] = np.arange(1, seed_count)
    seedless = np.flatnonzero(seeds_of_piece == 0)
    number_of_piece[seedless] = seed_count + np.arange(len(seedless))
    labels = number_of_piece[pieces]
    is_contested = (seeds_of_piece > 1)[pieces]
    if is_contested.any():
        contested = places[is_contested]
        labels[is_contested] = _divide(seeds, ground.seed_map, contested).ravel()[contested]
    return labels


def _divide(seeds: LabelMap, seed_map: UInt8Array, places: Places) -> LabelMap:
    """Watershed of the pixels at `places` from the seeds among them; 0 elsewhere."""
    rows, columns = np.divmod(places, seeds.shape[1])
    box = slice(rows[0], rows[-1] + 1), slice(columns.min(), columns.max() + 1)
    inside = np.zeros(seeds.shape, bool)
    inside.ravel()[places] = True
    divided = np.zeros(seeds.shape, np.int32)
    divided[box] = watershed(-seed_map[box].astype(np.float32), seeds[box] * inside[box], mask=inside[box])
    return divided


def measure_nuclei(grown: Grown) -> npt.NDArray[np.float64]:
    """Area, sum of the foreground and maximum of the seed map of each label from 0 on, (N + 1, 3)."""
    areas = np.bincount(grown.labels, minlength=1)
    peaks = np.zeros(len(areas), np.uint8)
    np.maximum.at(peaks, grown.labels, grown.seed_map)
    return np.stack([areas, np.bincount(grown.labels, grown.foreground, minlength=1), peaks], axis=1)


def are_nuclei(measures: npt.NDArray[np.float64], parameters: Parameters) -> npt.NDArray[np.bool_]:
    """For each label of an image whether it is a nucleus: not small, not small among its neighbours, not faint."""
    areas, foreground, peaks = measures.T
    keep = areas >= max(parameters.area, 1)
    if keep.any():
        keep &= areas >= parameters.relative_area * np.median(areas[keep])
    return np.asarray(keep & (foreground >= parameters.confidence * 255 * areas) & (peaks >= parameters.peak * 255))


def _labels_under(islands: Labels, labels: Labels, count: int) -> npt.NDArray[np.int64]:
    """Label that each of `count` islands (0 is none) lies on, one for each as an island lies on one label alone."""
    under = np.zeros(count, np.int64)
    under[islands] = labels
    under[0] = 0
    return under


def _draw(labels: Labels, places: Places, shape: tuple[int, ...]) -> LabelMap:
    """Label map of that shape with the labels at the places and background elsewhere."""
    label_map = np.zeros(shape, np.int32)
    label_map.ravel()[places] = labels
    return label_map
