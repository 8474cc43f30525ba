"""The metric: known IoUs of discs, agreement with the definition, what may change a score."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nuclei.evaluation import metric
from nuclei.submission import rle

PERCENTS = range(50, 100, 5)
SHAPE = (6, 7)
LABEL_MAPS = arrays(np.int32, SHAPE, elements=st.integers(0, 3))

# A busy machine may take long over an example; that is no fault.
unhurried = settings(deadline=None)


def disc(height, width, row, column, radius):
    rows, columns = np.ogrid[:height, :width]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def nuclei_of(label_map):
    """Each nucleus as a set of coordinates."""
    return [set(zip(*np.nonzero(label_map == label), strict=True)) for label in np.unique(label_map) if label]


def exact_iou(one, two):
    return Fraction(len(one & two), len(one | two))


def slow_average_precision(truth, predicted):
    """The definition, mask by mask and in fractions, with explicit one-to-one matching."""
    values = []
    for percent in PERCENTS:
        free = list(predicted)
        true_positives = 0
        for nucleus in truth:
            hit = next((other for other in free if exact_iou(nucleus, other) > Fraction(percent, 100)), None)
            if hit is not None:
                free.remove(hit)
                true_positives += 1
        total = true_positives + (len(truth) - true_positives) + len(free)
        values.append(Fraction(true_positives, total) if total else Fraction(1))
    return [float(value) for value in values]


def cell_culture(seed):
    """Some twenty discs of many sizes, and a map with each moved, grown, cut or left out."""
    rng = np.random.default_rng(seed)
    truth, predicted = np.zeros((2, 90, 110), np.int32)
    for label in range(1, 25):
        row, column, radius = rng.integers(5, 85), rng.integers(5, 105), rng.integers(2, 12)
        truth[disc(90, 110, row, column, radius)] = label
        if rng.random() < 0.9:
            moved = rng.integers(-2, 3, 2)
            predicted[disc(90, 110, row + moved[0], column + moved[1], radius + rng.integers(-1, 2))] = label
    predicted[:, 40:42] = 0
    return truth, predicted


def runs_of(label_map):
    return rle.parse_rows(rle.encode_label_map(label_map))


@pytest.mark.parametrize("seed", range(8))
def test_discs_score_as_the_definition_says(seed):
    truth, predicted = cell_culture(seed)
    values = metric.average_precision(truth, predicted)
    assert 0 < values.mean() < 1
    np.testing.assert_allclose(
        values, slow_average_precision(nuclei_of(truth), nuclei_of(predicted)), rtol=1e-15
    )


@unhurried
@given(LABEL_MAPS, LABEL_MAPS)
def test_any_two_label_maps_score_as_the_definition_says_drawn_or_as_runs(truth, predicted):
    expected = slow_average_precision(nuclei_of(truth), nuclei_of(predicted))
    assert metric.average_precision(truth, predicted).tolist() == expected
    assert metric.average_precision_from_runs(runs_of(truth), runs_of(predicted)).tolist() == expected


@unhurried
@given(LABEL_MAPS, LABEL_MAPS)
def test_an_outcome_holds_the_largest_iou_with_a_nucleus_of_the_other_map(truth, predicted):
    ours, theirs = nuclei_of(truth), nuclei_of(predicted)
    found = metric.outcomes(truth, predicted)
    assert found.true_iou.tolist() == [max((float(exact_iou(a, b)) for b in theirs), default=0.0) for a in ours]
    assert found.predicted_iou.tolist() == [
        max((float(exact_iou(a, b)) for a in ours), default=0.0) for b in theirs
    ]


@pytest.mark.parametrize("shift", range(12))
def test_a_disc_rolled_by_n_pixels_has_the_iou_of_two_shifted_discs(shift):
    mask = disc(60, 60, 30, 25, 10)
    chords = mask.sum(
        axis=1
    )  # moved by n along its rows, the disc loses n pixels of each row, or all there are
    shared = int(np.maximum(chords - shift, 0).sum())
    iou = Fraction(shared, 2 * int(chords.sum()) - shared)
    truth, rolled = mask.astype(np.int32), np.roll(mask, shift, axis=1).astype(np.int32)
    assert metric.outcomes(truth, rolled).true_iou.item() == float(iou)
    expected = [float(iou > Fraction(percent, 100)) for percent in PERCENTS]
    assert metric.average_precision(truth, rolled).tolist() == expected


@pytest.mark.parametrize("percent", PERCENTS)
@pytest.mark.parametrize("scale", [20, 700])
def test_an_iou_equal_to_the_threshold_is_no_hit_and_one_pixel_more_is(percent, scale):
    union = scale * 20
    shared = union * percent // 100
    truth, predicted = np.zeros((2, 1, union), np.int32)
    truth[:] = 1
    predicted[:, :shared] = 1
    index = PERCENTS.index(percent)
    assert metric.average_precision(truth, predicted)[index] == 0
    predicted[:, shared] = 1
    assert metric.average_precision(truth, predicted)[index] == 1


def test_thresholds_are_the_decimal_numbers_and_not_sums_of_steps():
    assert metric.THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@unhurried
@given(LABEL_MAPS, LABEL_MAPS, st.permutations([1, 2, 3]), st.sampled_from([1, 250, 10**6]))
def test_neither_the_order_of_labels_nor_gaps_between_them_change_a_score(truth, predicted, labels, factor):
    renamed = np.array([0, *labels])[predicted] * factor
    expected = metric.average_precision(truth, predicted)
    np.testing.assert_array_equal(metric.average_precision(truth, renamed), expected)
    np.testing.assert_array_equal(metric.average_precision(truth * factor, renamed), expected)
    assert metric.error_counts(truth * factor, renamed) == metric.error_counts(truth, predicted)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.uint64])
@pytest.mark.parametrize("factor", [1, 10])
def test_the_type_and_memory_order_of_the_maps_do_not_matter(dtype, factor):
    truth, predicted = (label_map * factor for label_map in cell_culture(3))
    expected = metric.average_precision(truth, predicted)
    np.testing.assert_array_equal(
        metric.average_precision(truth.astype(dtype), np.asfortranarray(predicted)), expected
    )
    np.testing.assert_array_equal(metric.average_precision(truth, predicted.astype(dtype)), expected)


def test_a_score_does_not_depend_on_which_of_the_two_is_the_truth_nor_on_a_flip_of_both():
    truth, predicted = cell_culture(5)
    expected = metric.average_precision(truth, predicted)
    np.testing.assert_array_equal(metric.average_precision(predicted, truth), expected)
    np.testing.assert_array_equal(metric.average_precision(truth.T[::-1], predicted.T[::-1]), expected)


def test_a_perfect_prediction_scores_one():
    truth, _ = cell_culture(1)
    np.testing.assert_array_equal(metric.average_precision(truth, truth), np.ones(10))


@pytest.mark.parametrize("seed", range(4))
def test_a_better_prediction_does_not_score_lower(seed):
    """Nucleus after nucleus of a bad prediction is put right; no threshold may lose by it."""
    truth, predicted = cell_culture(seed)
    scores = [metric.average_precision(truth, predicted)]
    for label in range(1, 25):
        # The pixels go to their true nucleus, and the label's wrong pixels to background.
        predicted = np.where(predicted == label, 0, predicted)
        predicted[truth == label] = label
        scores.append(metric.average_precision(truth, predicted))
    assert scores[0].mean() < scores[-1].mean() == 1
    # Pixels taken from a neighbour to put a nucleus right were wrong there as well, so that the
    # neighbour gains too.
    assert all((later >= earlier).all() for earlier, later in pairwise(scores))


def test_an_invented_and_a_missed_nucleus_cost_the_same():
    truth, _ = cell_culture(2)
    labels = np.unique(truth)[1:]
    invented = truth.copy()
    invented[np.argwhere(truth == 0)[0][0], np.argwhere(truth == 0)[0][1]] = labels[-1] + 1
    missed = np.where(truth == labels[0], 0, truth)
    assert metric.average_precision(truth, invented).tolist() == [len(labels) / (len(labels) + 1)] * 10
    assert metric.average_precision(truth, missed).tolist() == [(len(labels) - 1) / len(labels)] * 10


@pytest.mark.parametrize("shape", [SHAPE, (0, 0)])
def test_two_empty_images_score_one(shape):
    empty = np.zeros(shape, np.int32)
    assert metric.average_precision(empty, empty).tolist() == [1.0] * 10
    assert metric.average_precision_from_runs(runs_of(empty), runs_of(empty)).tolist() == [1.0] * 10
    assert len(metric.outcomes(empty, empty).true_iou) == 0
    assert set(metric.error_counts(empty, empty).values()) == {0}


def test_one_empty_image_of_the_two_scores_zero():
    truth, _ = cell_culture(0)
    empty = np.zeros_like(truth)
    for one, two in ((truth, empty), (empty, truth)):
        assert metric.average_precision(one, two).tolist() == [0.0] * 10
        assert metric.average_precision_from_runs(runs_of(one), runs_of(two)).tolist() == [0.0] * 10


def test_true_nuclei_that_overlap_are_each_weighed_and_a_prediction_hits_one_of_them():
    whole, most = "1 10", "2 9"
    runs = rle.parse_rows([whole, most])
    expected = slow_average_precision([set(range(1, 11)), set(range(2, 11))], [set(range(1, 11))])
    assert expected == [0.5] * 10
    assert metric.average_precision_from_runs(runs, rle.parse_rows([whole])).tolist() == expected


def test_predicted_nuclei_that_overlap_are_refused():
    with pytest.raises(ValueError, match="predicted nuclei overlap"):
        metric.average_precision_from_runs(rle.parse_rows(["1 10"]), rle.parse_rows(["1 5", "5 2"]))


@unhurried
@given(LABEL_MAPS, LABEL_MAPS)
def test_errors_count_every_nucleus_and_agree_with_the_score(truth, predicted):
    true_nuclei, predicted_nuclei = nuclei_of(truth), nuclei_of(predicted)
    for threshold in (0.5, 0.7):
        counts = metric.error_counts(truth, predicted, threshold)
        assert counts["hits"] + counts["missed"] == len(true_nuclei)
        assert counts["hits"] + counts["extra"] == len(predicted_nuclei)
        total = counts["hits"] + counts["missed"] + counts["extra"]
        score = metric.average_precision(truth, predicted)[metric.THRESHOLDS.index(threshold)]
        assert score == (counts["hits"] / total if total else 1)
        is_part = [[exact_iou(a, b) > Fraction(1, 10) for b in predicted_nuclei] for a in true_nuclei]
        assert counts["split"] == sum(sum(row) > 1 for row in is_part)
        assert counts["merged"] == sum(sum(column) > 1 for column in zip(*is_part, strict=True))


def test_a_halved_nucleus_is_a_split_and_two_in_one_are_merged():
    truth, predicted = np.zeros((2, 20, 60), np.int32)
    truth[2:12, 2:12] = 1
    predicted[2:12, 2:7], predicted[2:12, 7:12] = 1, 2
    truth[2:12, 20:30], truth[2:12, 30:40] = 2, 3
    predicted[2:12, 20:40] = 3
    truth[2:12, 50:60] = predicted[2:12, 50:60] = 4
    assert metric.error_counts(truth, predicted) == {
        "hits": 1,
        "missed": 3,
        "extra": 3,
        "split": 1,
        "merged": 1,
    }


@pytest.mark.parametrize("threshold", [0.49, 1.0, 0.55555, float("nan")])
def test_a_threshold_at_which_a_hit_is_not_unique_or_not_exact_is_refused(threshold):
    empty = np.zeros(SHAPE, np.int32)
    with pytest.raises(ValueError, match="threshold"):
        metric.error_counts(empty, empty, threshold)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (np.zeros((7, 6), np.int32), r"of one shape .* \(7, 6\) and \(6, 7\)"),
        (np.zeros(SHAPE), "true label map, got float64"),
        (np.full(SHAPE, -1), "true label map, got int64 from -1"),
        (np.full(SHAPE, 2**63, np.uint64), "too large"),
    ],
)
def test_what_are_no_two_label_maps_is_refused(truth, message):
    with pytest.raises(ValueError, match=message):
        metric.average_precision(truth, np.zeros(SHAPE, np.int32))
