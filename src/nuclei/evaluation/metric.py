"""The competition's metric, mean average precision (mAP): TP / (TP + FP + FN) at ten thresholds
of intersection over union (IoU), averaged.

A true positive is a pair of nuclei with an IoU *greater than* the threshold, not equal to it,
compared in whole numbers, so that an IoU of exactly 0.75 is no hit at 0.75. Two nuclei of one label
map share no pixel, so above an IoU of 0.5 a nucleus has at most one partner, and no assignment has
to be solved.

Conventions: two empty images score 1; if only one of the two is empty the score is 0. The
competition leaves this open, since all images that it scores have nuclei.

Source: https://www.kaggle.com/c/data-science-bowl-2018/overview/evaluation
"""

from dataclasses import dataclass

import numpy as np

from nuclei.arrays import BoolArray, Float64Array, Int64Array, Labels
from nuclei.errors import UserError

Runs = tuple[Int64Array, Int64Array, Int64Array]
"""Starts, lengths and nucleus numbers (from 0) of an image's runs, as of `rle.parse_rows`."""

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))

_THOUSANDTHS = np.arange(500, 1000, 50)
# With more cells than this, a table of all pairs of labels costs more than sorting.
_LARGEST_TABLE = 2**20
# IoU above which a nucleus is a part of another one, in splits and merges.
_PART_THOUSANDTHS = 100


@dataclass(frozen=True)
class Outcomes:
    """Outcome of each of T true and P predicted nuclei, in ascending order of labels.

    `true_iou` (T,) and `predicted_iou` (P,) are the largest IoU with a nucleus of the other label
    map; a nucleus is found at thresholds below it. `split` (T,) and `merged` (P,) are as in
    `error_counts`.
    """

    true_areas: Int64Array
    true_iou: Float64Array
    predicted_iou: Float64Array
    split: BoolArray
    merged: BoolArray


@dataclass(frozen=True)
class _Overlaps:
    """Areas in pixels of T true and P predicted nuclei, and their K pairs that share pixels."""

    true_areas: Int64Array
    predicted_areas: Int64Array
    true_indices: Int64Array
    predicted_indices: Int64Array
    intersections: Int64Array

    @property
    def unions(self) -> Int64Array:
        areas = self.true_areas[self.true_indices] + self.predicted_areas[self.predicted_indices]
        return areas - self.intersections

    def exceed(self, thousandths: int | Int64Array) -> BoolArray:
        """For each pair whether its IoU exceeds a number of thousandths."""
        return 1000 * self.intersections > thousandths * self.unions


def average_precision(truth: Labels, predicted: Labels) -> Float64Array:
    """Precision TP / (TP + FP + FN) (10,) of two label maps (H, W) at the IoU THRESHOLDS.

    Labels may have gaps and any integer type; 0 is background. Empty images: see the module's
    conventions.

    Raises:
        UserError: arrays that are no two label maps of one shape.
    """
    return _average_precision(_overlaps_of_maps(truth, predicted))


def average_precision_from_runs(truth: Runs, predicted: Runs) -> Float64Array:
    """TP / (TP + FP + FN) (10,) of the runs of one image: equal to that of its label maps.

    True nuclei may share pixels, as some annotations do; each predicted nucleus then matches at
    most one.

    Raises:
        UserError: predicted nuclei that share pixels, which the competition forbids.
    """
    return _average_precision(_overlaps_of_runs(truth, predicted))


def outcomes(truth: Labels, predicted: Labels) -> Outcomes:
    """Outcome of each nucleus of two label maps.

    Raises:
        UserError: arrays that are no two label maps of one shape.
    """
    overlaps = _overlaps_of_maps(truth, predicted)
    iou = overlaps.intersections / overlaps.unions
    true_iou, predicted_iou = (
        np.zeros(len(overlaps.true_areas)),
        np.zeros(len(overlaps.predicted_areas)),
    )
    np.maximum.at(true_iou, overlaps.true_indices, iou)
    np.maximum.at(predicted_iou, overlaps.predicted_indices, iou)
    split, merged = _split_and_merged(overlaps)
    return Outcomes(overlaps.true_areas, true_iou, predicted_iou, split, merged)


def error_counts(truth: Labels, predicted: Labels, threshold: float = 0.5) -> dict[str, int]:
    """Numbers of nuclei by outcome: hits, missed, extra, split and merged.

    Hits have an IoU greater than `threshold`. Missed are the other true nuclei, extra the other
    predicted ones. Split are true nuclei with an IoU greater than 0.1 with several predicted ones,
    and merged the reverse.

    Raises: UserError: a threshold outside [0.5, 1) or with more than three decimals; arrays that
        are no two label maps
            of one shape.

    Source: Caicedo et al., Evaluation of Deep Learning Strategies for Nucleus Segmentation in
        Fluorescence Images, Cytometry A 95 (2019), doi:10.1002/cyto.a.23863, for splits and merges.
    """
    if not 0.5 <= threshold < 1 or round(threshold, 3) != threshold:
        raise UserError(f"expected a threshold in [0.5, 1) with at most three decimals, got {threshold}")
    overlaps = _overlaps_of_maps(truth, predicted)
    hits = int(np.count_nonzero(overlaps.exceed(round(1000 * threshold))))
    split, merged = _split_and_merged(overlaps)
    return {
        "hits": hits,
        "missed": len(overlaps.true_areas) - hits,
        "extra": len(overlaps.predicted_areas) - hits,
        "split": int(np.count_nonzero(split)),
        "merged": int(np.count_nonzero(merged)),
    }


def _split_and_merged(overlaps: _Overlaps) -> tuple[BoolArray, BoolArray]:
    """Which true nuclei (T,) are split into several, which predicted ones (P,) are merged."""
    is_part = overlaps.exceed(_PART_THOUSANDTHS)
    parts = np.bincount(overlaps.true_indices[is_part], minlength=len(overlaps.true_areas))
    wholes = np.bincount(overlaps.predicted_indices[is_part], minlength=len(overlaps.predicted_areas))
    return parts > 1, wholes > 1


def _average_precision(overlaps: _Overlaps) -> Float64Array:
    nuclei = len(overlaps.true_areas) + len(overlaps.predicted_areas)
    if not nuclei:
        return np.ones(len(THRESHOLDS))
    hit_thresholds, hit_pairs = np.nonzero(overlaps.exceed(_THOUSANDTHS[:, None]))
    # Marked, not counted: if annotations overlap, a predicted nucleus may exceed 0.5 with two of
    # them.
    is_hit = np.zeros((len(THRESHOLDS), len(overlaps.predicted_areas)), bool)
    is_hit[hit_thresholds, overlaps.predicted_indices[hit_pairs]] = True
    true_positives = np.count_nonzero(is_hit, axis=1)
    # TP + FP + FN: every nucleus once, and the two of a hit together once.
    return np.asarray(true_positives / (nuclei - true_positives))


def _overlaps_of_maps(truth: Labels, predicted: Labels) -> _Overlaps:
    """Overlaps of two label maps (H, W), from their stretches."""
    if truth.shape != predicted.shape or truth.ndim != 2:
        raise UserError(f"expected two label maps of one shape (H, W), got {truth.shape} and {predicted.shape}")
    true_labels, predicted_labels, lengths = _find_stretches(truth.ravel(), predicted.ravel())
    _check_labels("true", true_labels)
    _check_labels("predicted", predicted_labels)
    columns = int(predicted_labels.max(initial=0)) + 1
    rows = int(true_labels.max(initial=0)) + 1
    if rows * columns >= 2**63:
        raise UserError(
            f"labels up to {truth.max()} and {predicted.max()} are too large to count; number them from 1"
        )
    keys = np.multiply(true_labels, columns, dtype=np.int64, casting="unsafe")
    keys += predicted_labels.astype(np.int64)
    pairs, counts = _count(keys, lengths, rows * columns)
    true_of_pair, predicted_of_pair = np.divmod(pairs, columns)
    true_areas, true_indices = _measure_areas(true_of_pair, counts, rows)
    predicted_areas, predicted_indices = _measure_areas(predicted_of_pair, counts, columns)
    shared = (true_of_pair > 0) & (predicted_of_pair > 0)
    return _Overlaps(
        true_areas, predicted_areas, true_indices[shared], predicted_indices[shared], counts[shared]
    )


def _find_stretches(truth: Labels, predicted: Labels) -> tuple[Labels, Labels, Int64Array]:
    """True label, predicted label and length of each stretch of pixels with constant labels.

    Takes raveled label maps. An image has a hundred times fewer stretches than pixels, and what
    follows is far slower for each of them than finding them.
    """
    is_bound = np.empty(truth.size + 1, bool)
    is_bound[0] = is_bound[-1] = True
    np.not_equal(truth[1:], truth[:-1], out=is_bound[1:-1])
    is_bound[1:-1] |= predicted[1:] != predicted[:-1]
    bounds = np.flatnonzero(is_bound)
    starts = bounds[:-1]
    return truth[starts], predicted[starts], bounds[1:] - starts


def _check_labels(name: str, labels: Labels) -> None:
    smallest = labels.min(initial=0)
    if labels.dtype.kind not in "iu" or smallest < 0:
        raise UserError(f"expected integers from 0 in the {name} label map, got {labels.dtype} from {smallest}")


def _count(keys: Int64Array, lengths: Int64Array, cells: int) -> tuple[Int64Array, Int64Array]:
    """The distinct keys, ascending, and the sum of lengths of each; keys lie below `cells`."""
    if cells <= _LARGEST_TABLE:
        table = np.bincount(keys, lengths, cells)  # float64 counts the pixels of any image exactly
        found = np.flatnonzero(table > 0)
        return found, table[found].astype(np.int64)
    found, places = np.unique(keys, return_inverse=True)
    return found, np.bincount(places, lengths).astype(np.int64)


def _measure_areas(labels: Int64Array, counts: Int64Array, above: int) -> tuple[Int64Array, Int64Array]:
    """Area of each nucleus in ascending order of labels, and each label's index into them.

    Labels lie below `above`; the index of background is -1.
    """
    present, areas = _count(labels, counts, above)
    has_background = bool(len(present)) and present[0] == 0
    return areas[int(has_background) :], np.searchsorted(present, labels) - int(has_background)


def _overlaps_of_runs(truth: Runs, predicted: Runs) -> _Overlaps:
    """Overlaps of an image's runs, each true run with its slice of sorted predicted runs."""
    order = np.argsort(predicted[0], kind="stable")
    sorted_starts, sorted_lengths, sorted_nuclei = (part[order] for part in predicted)
    if (sorted_starts[1:] < (sorted_starts + sorted_lengths)[:-1]).any():
        raise UserError("predicted nuclei overlap; no two masks of an image may share a pixel")
    true_runs, predicted_runs, shared = _find_meeting_runs(truth[0], truth[1], sorted_starts, sorted_lengths)
    true_areas, true_indices = _measure_nuclei_of_runs(truth[2], truth[1])
    predicted_areas, predicted_indices = _measure_nuclei_of_runs(sorted_nuclei, sorted_lengths)
    columns = max(len(predicted_areas), 1)
    keys = true_indices[true_runs] * columns + predicted_indices[predicted_runs]
    pairs, intersections = _count(keys, shared, len(true_areas) * len(predicted_areas))
    return _Overlaps(true_areas, predicted_areas, *np.divmod(pairs, columns), intersections=intersections)


def _find_meeting_runs(
    starts: Int64Array, lengths: Int64Array, sorted_starts: Int64Array, sorted_lengths: Int64Array
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Pairs of runs that share pixels, as indices into both lists, and how many they share.

    The runs of the second list are sorted and do not overlap.
    """
    ends, sorted_ends = starts + lengths, sorted_starts + sorted_lengths
    first = np.searchsorted(sorted_ends, starts, side="right")
    met = np.searchsorted(sorted_starts, ends, side="left") - first
    runs = np.repeat(np.arange(len(starts)), met)
    others = np.arange(met.sum()) + np.repeat(first - (np.cumsum(met) - met), met)
    shared = np.minimum(ends[runs], sorted_ends[others]) - np.maximum(starts[runs], sorted_starts[others])
    return runs, others, shared


def _measure_nuclei_of_runs(nuclei: Int64Array, lengths: Int64Array) -> tuple[Int64Array, Int64Array]:
    """`_measure_areas` of runs, whose nuclei are numbered from 0 and have no background."""
    return _measure_areas(nuclei + 1, lengths, int(nuclei.max(initial=0)) + 2)
