"""From probability maps to instances: watershed markers, flooding, and a filter of false instances.

The maps of an image are (3, H, W) uint8, probability * 255, with the channels FOREGROUND (inside
any nucleus), BORDER (between touching nuclei) and CORE (an energy: 1 in the middle of a nucleus and
0 at its boundary, or the probability of the body without its border). The seed map is the core less
the border; its connected components are the markers of the watershed.

On images unlike its training images a network is less sure throughout, and thresholds that fit
other images find little. So each image has a certainty, and thresholds are fractions of it. Within
an instance, `Parameters.instance_threshold` is a fraction of the instance's own mean probability.

Source: watershed on body less border, from the first place of the competition, Buslaev, Seferbekov
and Durnov (2018).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from skimage.segmentation import watershed

from nuclei.arrays import (
    BORDER,
    CHANNELS,
    CORE,
    FOREGROUND,
    BoolArray,
    Float64Array,
    Int64Array,
    LabelMap,
    Labels,
    UInt8Array,
)
from nuclei.errors import UserError
from nuclei.postprocessing.label_ops import PixelIndices, fill_holes, label_components, renumber
from nuclei.postprocessing.parameters import Parameters

_SPLIT_STEP = 0.1


@dataclass(frozen=True)
class WatershedInput:
    """Where the markers may grow and along which values."""

    mask: UInt8Array
    """Foreground (H, W), 0 or 1."""
    seed_map: UInt8Array
    """(H, W), 0 outside the mask."""
    indices: PixelIndices
    """Pixels of the mask."""


@dataclass(frozen=True)
class Instances:
    """Instances before the filter, one entry a foreground pixel: most pixels are background."""

    shape: tuple[int, ...]
    indices: PixelIndices
    labels: Labels
    foreground: UInt8Array
    seed_map: UInt8Array


def segment_maps(maps: UInt8Array, parameters: Parameters) -> LabelMap:
    """Label map (H, W) int32 of the maps (3, H, W) uint8, numbered 1..N; all 0 without nuclei.

    Raises:
        UserError: maps of another shape or type.
    """
    _check(maps)
    parameters = parameters.at(measure_certainty(maps))
    instances = find_instances(maps, parameters)
    return draw_instances(instances, filter_instances(measure_instances(instances), parameters))


def foreground_histogram(maps: UInt8Array) -> Int64Array:
    """Number of pixels with each foreground value, (256,); those of an image's parts add up."""
    # calcHist counts in float32, which is exact up to 2 ** 24.
    counts = cv2.calcHist([maps[FOREGROUND]], [0], None, [256], [0, 256])
    return np.asarray(counts.ravel(), np.int64)


def measure_certainty(maps: UInt8Array) -> float:
    """Mean foreground probability, 0.5 to 1, of the pixels above 0.5; 1 if there are none."""
    return certainty_from_histogram(foreground_histogram(maps))


def certainty_from_histogram(counts: Int64Array) -> float:
    """`measure_certainty` from a foreground histogram (256,)."""
    values = np.arange(len(counts)) / 255
    likely = np.where(values >= 0.5, counts, 0)
    return float(np.average(values, weights=likely)) if likely.any() else 1.0


def find_instances(maps: UInt8Array, parameters: Parameters) -> Instances:
    """Instances before the filter; no parameter of FILTER_PARAMETERS has an effect.

    Here and below, thresholds are probabilities (`Parameters.at` was called).
    """
    given = threshold_maps(maps, parameters)
    instances = flood_markers(maps, given, find_markers(given, parameters))
    return trim_instances(instances, parameters.instance_threshold)


def threshold_maps(maps: UInt8Array, parameters: Parameters) -> WatershedInput:
    """Mask and seed map of the maps, by `foreground_threshold` and `border_weight` alone."""
    mask = _at_least(maps[FOREGROUND], parameters.foreground_threshold)
    seed_map = cv2.addWeighted(maps[CORE], 1.0, maps[BORDER], -parameters.border_weight, 0.0)
    # Only a marker in the foreground counts; it then lies in a single component of the mask.
    seed_map = np.asarray(cv2.bitwise_and(seed_map, seed_map, mask=mask), np.uint8)
    return WatershedInput(mask, seed_map, np.flatnonzero(mask.view(bool)))


def find_markers(given: WatershedInput, parameters: Parameters) -> LabelMap:
    """Watershed markers 1..S (H, W): components of the seed map above `seed_threshold`.

    A marker is replaced by its components at a higher threshold if there are several: one
    threshold alone either joins nuclei or misses the faint ones. A component must have a minimum
    fraction of the marker's area, so that noise on a summit makes no second marker.
    """
    low = _at_least(given.seed_map, max(parameters.seed_threshold, 1 / 255))
    indices = np.flatnonzero(low.view(bool))
    count, markers = label_components(low, indices)
    areas = np.bincount(markers, minlength=count)
    for level in range(1, parameters.split_levels + 1):
        threshold = parameters.seed_threshold + level * _SPLIT_STEP
        if threshold > 1:
            break
        high = _at_least(given.seed_map, threshold)
        markers, areas = _split_markers(markers, areas, high, indices, parameters)
    large = areas >= max(parameters.min_seed_area, 1)
    return _scatter(renumber(large)[markers], indices, given.seed_map.shape)


def _split_markers(
    markers: Labels, areas: Labels, high: UInt8Array, indices: PixelIndices, parameters: Parameters
) -> tuple[Labels, Labels]:
    """Markers and all areas; a marker with several large parts in the mask `high` becomes these."""
    count = len(areas)
    part_count, parts = label_components(high, indices)
    part_areas = np.bincount(parts, minlength=part_count)
    marker_of_part = _label_below(parts, markers, part_count)
    counts = marker_of_part > 0
    counts &= part_areas >= parameters.min_seed_area
    counts &= part_areas >= parameters.min_split_fraction * areas[marker_of_part]
    is_split = np.bincount(marker_of_part[counts], minlength=count) >= 2
    if not is_split.any():
        return markers, areas
    new = np.flatnonzero(counts & is_split[marker_of_part])
    number_of_part = np.zeros(part_count, np.int32)
    number_of_part[new] = count + np.arange(len(new))
    numbers = number_of_part[parts]
    markers = np.where(numbers > 0, numbers, np.where(is_split[markers], 0, markers))
    return markers, np.concatenate([np.where(is_split, 0, areas), part_areas[new]])


def flood_markers(maps: UInt8Array, given: WatershedInput, markers: LabelMap) -> Instances:
    """Instances that grow from markers (H, W) over the mask; all markers lie in the mask."""
    return Instances(
        markers.shape,
        given.indices,
        _flood(markers, given),
        maps[FOREGROUND].ravel()[given.indices],
        given.seed_map.ravel()[given.indices],
    )


def _flood(markers: LabelMap, given: WatershedInput) -> Labels:
    """Instance of each pixel of the mask; a component with at most one marker is one instance.

    Only components with several markers need the watershed, which would take most of the time.
    """
    indices = given.indices
    component_count, components = label_components(given.mask, indices)
    marker_count = int(markers.max(initial=0)) + 1
    component_of_marker = _label_below(markers.ravel()[indices], components, marker_count)
    markers_in_component = np.bincount(component_of_marker[1:], minlength=component_count)
    label_of_component = np.zeros(component_count, np.int32)
    label_of_component[component_of_marker[1:]] = np.arange(1, marker_count)
    unmarked = np.flatnonzero(markers_in_component == 0)
    label_of_component[unmarked] = marker_count + np.arange(len(unmarked))
    labels = label_of_component[components]
    is_shared = (markers_in_component > 1)[components]
    if is_shared.any():
        shared = indices[is_shared]
        labels[is_shared] = _watershed(markers, given.seed_map, shared).ravel()[shared]
    return labels


def _watershed(markers: LabelMap, seed_map: UInt8Array, indices: PixelIndices) -> LabelMap:
    """Watershed of the pixels at `indices` from the markers among them; 0 elsewhere."""
    rows, columns = np.divmod(indices, markers.shape[1])
    box = slice(rows[0], rows[-1] + 1), slice(columns.min(), columns.max() + 1)
    inside = np.zeros(markers.shape, bool)
    inside.ravel()[indices] = True
    flooded = np.zeros(markers.shape, np.int32)
    depth = -seed_map[box].astype(np.float32)
    flooded[box] = watershed(depth, markers[box] * inside[box], mask=inside[box])
    return flooded


def trim_instances(instances: Instances, fraction: float) -> Instances:
    """Instances without pixels below a fraction of the instance's mean foreground probability.

    A network that is less sure of a nucleus than of others is so at its boundary as well, and the
    boundary of a sure one is steeper: one threshold for all makes faint nuclei too small and bright
    ones too large.
    """
    if not fraction:
        return instances
    labels, foreground = instances.labels, instances.foreground
    areas = np.bincount(labels, minlength=1).clip(1)
    means = np.bincount(labels, foreground, minlength=1) / areas
    keep = foreground >= (fraction * means)[labels]
    return Instances(
        instances.shape,
        instances.indices[keep],
        labels[keep],
        foreground[keep],
        instances.seed_map[keep],
    )


def measure_instances(instances: Instances) -> Float64Array:
    """Area, sum of the foreground and maximum of the seed map of each label from 0, (N + 1, 3)."""
    labels = instances.labels
    areas = np.bincount(labels, minlength=1)
    peaks = np.zeros(len(areas), np.uint8)
    np.maximum.at(peaks, labels, instances.seed_map)
    return np.stack([areas, np.bincount(labels, instances.foreground, minlength=1), peaks], axis=1)


def filter_instances(measures: Float64Array, parameters: Parameters) -> BoolArray:
    """Which labels to keep, (N + 1,): not small, absolutely or for this image, and not faint.

    `measures` is of `measure_instances`.
    """
    areas, foreground, peaks = measures.T
    keep = areas >= max(parameters.min_area, 1)
    if keep.any():
        keep &= areas >= parameters.min_relative_area * np.median(areas[keep])
    keep &= foreground >= parameters.min_mean_probability * 255 * areas
    keep &= peaks >= parameters.min_seed_peak * 255
    return np.asarray(keep)


def draw_instances(instances: Instances, keep: BoolArray) -> LabelMap:
    """Label map of the instances to keep, numbered 1..N, holes filled."""
    labels = renumber(keep)[instances.labels]
    return fill_holes(_scatter(labels, instances.indices, instances.shape))


def _check(maps: UInt8Array) -> None:
    if maps.ndim != 3 or maps.shape[0] != CHANNELS or maps.dtype != np.uint8:
        raise UserError(f"expected maps ({CHANNELS}, H, W) uint8, got {maps.shape} {maps.dtype}; predict again")


def _at_least(channel: UInt8Array, probability: float) -> UInt8Array:
    """1 where the channel has at least the probability, 0 elsewhere."""
    return (channel >= int(np.ceil(probability * 255 - 1e-9))).astype(np.uint8)


def _label_below(components: Labels, labels: Labels, count: int) -> Int64Array:
    """Label under each of `count` components; 0 for component 0. Each lies on one label alone."""
    below = np.zeros(count, np.int64)
    below[components] = labels
    below[0] = 0
    return below


def _scatter(labels: Labels, indices: PixelIndices, shape: tuple[int, ...]) -> LabelMap:
    """Label map of that shape with the labels at the indices and background elsewhere."""
    label_map = np.zeros(shape, np.int32)
    label_map.ravel()[indices] = labels
    return label_map
