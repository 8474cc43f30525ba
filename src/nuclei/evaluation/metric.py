"""The competition's metric: TP / (TP + FP + FN) at ten thresholds of intersection over union (IoU).

A hit is a pair with an IoU *greater than* the threshold, never equal to it, and the comparison is made in whole
numbers, so that an IoU of exactly 0.75 misses at 0.75. Two nuclei of one label map share no pixel; so above 0.5 a
nucleus can be hit only once, and no assignment has to be solved.

Conventions: two empty images agree and score 1 (nothing was to be found, and nothing was made up); if only one of
the two is empty the score is 0. The competition leaves this open, since all images that it scores hold nuclei.

Source: https://www.kaggle.com/c/data-science-bowl-2018/overview/evaluation
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nuclei.arrays import Float64Array, Int64Array, Labels
from nuclei.errors import UserError

Runs = tuple[Int64Array, Int64Array, Int64Array]
"""Starts, lengths and nucleus numbers (from 0) of the runs of an image, as `rle.parse_rows` gives them."""

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))

_THOUSANDTHS = np.arange(500, 1000, 50)
# Above this many cells a table of all pairs of labels costs more than sorting the stretches.
_LARGEST_TABLE = 2**20
# From this IoU on, a nucleus counts as a part of another in splits and merges.
_PART_THOUSANDTHS = 100


@dataclass(frozen=True)
class Outcomes:
    """What became of each of T true and P predicted nuclei, both in ascending order of their labels.

    `true_iou` (T,) and `predicted_iou` (P,) are the largest IoU with a nucleus of the other map: where it is greater
    than a threshold the nucleus is hit. `split` (T,) and `merged` (P,) are as in `error_counts`.
    """

    true_areas: Int64Array
    true_iou: Float64Array
    predicted_iou: Float64Array
    split: npt.NDArray[np.bool_]
    merged: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Overlaps:
    """Areas in pixels of T true and P predicted nuclei, and the K pairs of them that share pixels."""

    true_areas: Int64Array
    predicted_areas: Int64Array
    true_indices: Int64Array
    predicted_indices: Int64Array
    intersections: Int64Array

    @property
    def unions(self) -> Int64Array:
        areas = self.true_areas[self.true_indices] + self.predicted_areas[self.predicted_indices]
        return areas - self.intersections

    def exceed(self, thousandths: int | Int64Array) -> npt.NDArray[np.bool_]:
        """For each pair whether its IoU is greater than so many thousandths."""
        return 1000 * self.intersections > thousandths * self.unions


def iou_matrix(truth: Labels, predicted: Labels) -> Float64Array:
    """IoU (T, P) of each true with each predicted nucleus of two label maps, both in ascending order of labels.

    Raises:
        UserError: arrays that are no two label maps of one shape.
    """
    overlaps = _overlaps_of_maps(truth, predicted)
    matrix = np.zeros((len(overlaps.true_areas), len(overlaps.predicted_areas)))
    matrix[overlaps.true_indices, overlaps.predicted_indices] = overlaps.intersections / overlaps.unions
    return matrix


def average_precision(truth: Labels, predicted: Labels) -> Float64Array:
    """TP / (TP + FP + FN) (10,) of two label maps (H, W) at each of THRESHOLDS; the image's score is the mean.

    Labels may have gaps and any integer type; 0 is background. Empty images: see the module's conventions.

    Raises:
        UserError: arrays that are no two label maps of one shape.
    """
    return _average_precision(_overlaps_of_maps(truth, predicted))


def average_precision_from_runs(truth: Runs, predicted: Runs) -> Float64Array:
    """TP / (TP + FP + FN) (10,) of the run lengths of one image, without drawing it: the same as of label maps.

    True nuclei may share pixels, as annotations do here and there; then each predicted nucleus hits one at most.

    Raises:
        UserError: predicted nuclei that share pixels, which the competition forbids.
    """
    return _average_precision(_overlaps_of_runs(truth, predicted))


def outcomes(truth: Labels, predicted: Labels) -> Outcomes:
    """What became of each nucleus of two label maps.

    Raises:
        UserError: arrays that are no two label maps of one shape.
    """
    overlaps = _overlaps_of_maps(truth, predicted)
    iou = overlaps.intersections / overlaps.unions
    true_iou, predicted_iou = np.zeros(len(overlaps.true_areas)), np.zeros(len(overlaps.predicted_areas))
    np.maximum.at(true_iou, overlaps.true_indices, iou)
    np.maximum.at(predicted_iou, overlaps.predicted_indices, iou)
    split, merged = _split_and_merged(overlaps)
    return Outcomes(overlaps.true_areas, true_iou, predicted_iou, split, merged)


def error_counts(truth: Labels, predicted: Labels, threshold: float = 0.5) -> dict[str, int]:
    """Numbers of nuclei by what became of them: hits, missed, extra, split and merged.

    hits have an IoU greater than `threshold`; missed are true nuclei without a hit and extra are predicted ones
    without a hit, so hits + missed are all true nuclei and hits + extra all predicted ones. Beside that, split are
    true nuclei with an IoU greater than 0.1 with several predicted ones, and merged are predicted nuclei with an IoU
    greater than 0.1 with several true ones.

    Raises:
        UserError: a threshold outside [0.5, 1) or with more than three decimals; arrays that are no two label maps
            of one shape.

    Source: Caicedo et al., Evaluation of Deep Learning Strategies for Nucleus Segmentation in Fluorescence Images,
        Cytometry A 95 (2019), doi:10.1002/cyto.a.23863, for splits and merges.
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


def _split_and_merged(overlaps: _Overlaps) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which true nuclei (T,) have several parts among the predicted ones, and which of those (P,) the other way."""
    is_part = overlaps.exceed(_PART_THOUSANDTHS)
    parts = np.bincount(overlaps.true_indices[is_part], minlength=len(overlaps.true_areas))
    wholes = np.bincount(overlaps.predicted_indices[is_part], minlength=len(overlaps.predicted_areas))
    return parts > 1, wholes > 1


def _average_precision(overlaps: _Overlaps) -> Float64Array:
    nuclei = len(overlaps.true_areas) + len(overlaps.predicted_areas)
    if not nuclei:
        return np.ones(len(THRESHOLDS))
    hit_thresholds, hit_pairs = np.nonzero(overlaps.exceed(_THOUSANDTHS[:, None]))
    # Marked rather than counted: where annotations overlap, a predicted nucleus may exceed 0.5 with two of them.
    is_hit = np.zeros((len(THRESHOLDS), len(overlaps.predicted_areas)), bool)
    is_hit[hit_thresholds, overlaps.predicted_indices[hit_pairs]] = True
    true_positives = np.count_nonzero(is_hit, axis=1)
    # TP + FP + FN: every nucleus once, and the two of a hit together once.
    return np.asarray(true_positives / (nuclei - true_positives))


def _overlaps_of_maps(truth: Labels, predicted: Labels) -> _Overlaps:
    """Overlaps from the stretches of pixels, row by row, on which both maps keep their label, background included.

    There are a hundred times fewer stretches than pixels, and counting is by far the slowest that is done to each.
    """
    if truth.shape != predicted.shape or truth.ndim != 2:
        raise UserError(f"expected two label maps of one shape (H, W), got {truth.shape} and {predicted.shape}")
    true_pixels, predicted_pixels = truth.ravel(), predicted.ravel()
    is_bound = np.empty(truth.size + 1, bool)
    is_bound[0] = is_bound[-1] = True
    np.not_equal(true_pixels[1:], true_pixels[:-1], out=is_bound[1:-1])
    is_bound[1:-1] |= predicted_pixels[1:] != predicted_pixels[:-1]
    bounds = np.flatnonzero(is_bound)
    starts, lengths = bounds[:-1], bounds[1:] - bounds[:-1]
    true_labels, predicted_labels = true_pixels[starts], predicted_pixels[starts]
    for name, labels in (("true", true_labels), ("predicted", predicted_labels)):
        if labels.dtype.kind not in "iu" or (labels.dtype.kind == "i" and labels.min(initial=0) < 0):
            raise UserError(
                f"expected integers from 0 in the {name} label map, got {labels.dtype} from {labels.min(initial=0)}"
            )
    columns = int(predicted_labels.max(initial=0)) + 1
    rows = int(true_labels.max(initial=0)) + 1
    if rows * columns >= 2**63:
        raise UserError(f"labels up to {truth.max()} and {predicted.max()} are too large to count; number them from 1")
    keys = np.multiply(true_labels, columns, dtype=np.int64, casting="unsafe")
    keys += predicted_labels.astype(np.int64)
    pairs, counts = _count(keys, lengths, rows * columns)
    true_of_pair, predicted_of_pair = np.divmod(pairs, columns)
    true_areas, true_indices = _areas(true_of_pair, counts, rows)
    predicted_areas, predicted_indices = _areas(predicted_of_pair, counts, columns)
    is_shared = (true_of_pair > 0) & (predicted_of_pair > 0)
    return _Overlaps(
        true_areas, predicted_areas, true_indices[is_shared], predicted_indices[is_shared], counts[is_shared]
    )


def _count(keys: Int64Array, lengths: Int64Array, cells: int) -> tuple[Int64Array, Int64Array]:
    """The keys that occur, in ascending order, and the sum of the lengths of each; keys lie below `cells`."""
    if cells <= _LARGEST_TABLE:
        table = np.bincount(keys, lengths, cells)  # in float64, which is exact for the pixels of any image
        found = np.flatnonzero(table > 0)
        return found, table[found].astype(np.int64)
    found, places = np.unique(keys, return_inverse=True)
    return found, np.bincount(places, lengths).astype(np.int64)


def _areas(labels: Int64Array, counts: Int64Array, above: int) -> tuple[Int64Array, Int64Array]:
    """Area of each nucleus in ascending order of labels, and each label's index into them (-1 for background).

    Labels lie below `above`.
    """
    present, areas = _count(labels, counts, above)
    has_background = bool(len(present)) and present[0] == 0
    return areas[int(has_background) :], np.searchsorted(present, labels) - int(has_background)


def _overlaps_of_runs(truth: Runs, predicted: Runs) -> _Overlaps:
    """Overlaps from the runs that meet: for each true run, the slice of the sorted predicted ones it reaches."""
    true_starts, true_lengths, true_nuclei = truth
    order = np.argsort(predicted[0], kind="stable")
    predicted_starts, predicted_lengths, predicted_nuclei = (part[order] for part in predicted)
    true_ends, predicted_ends = true_starts + true_lengths, predicted_starts + predicted_lengths
    if (predicted_starts[1:] < predicted_ends[:-1]).any():
        raise UserError("predicted nuclei overlap; no two masks of an image may share a pixel")
    first = np.searchsorted(predicted_ends, true_starts, side="right")
    reached = np.searchsorted(predicted_starts, true_ends, side="left") - first
    true_runs = np.repeat(np.arange(len(true_starts)), reached)
    predicted_runs = np.arange(reached.sum()) + np.repeat(first - (np.cumsum(reached) - reached), reached)
    shared = np.minimum(true_ends[true_runs], predicted_ends[predicted_runs]) - np.maximum(
        true_starts[true_runs], predicted_starts[predicted_runs]
    )
    (true_areas, true_indices), (predicted_areas, predicted_indices) = (
        _areas(nuclei + 1, lengths, int(nuclei.max(initial=0)) + 2)
        for nuclei, lengths in ((true_nuclei, true_lengths), (predicted_nuclei, predicted_lengths))
    )
    keys = true_indices[true_runs] * max(len(predicted_areas), 1) + predicted_indices[predicted_runs]
    pairs, intersections = _count(keys, shared, len(true_areas) * len(predicted_areas))
    return _Overlaps(
        true_areas, predicted_areas, *np.divmod(pairs, max(len(predicted_areas), 1)), intersections=intersections
    )
