"""What the look at annotations measures and suspects, on shapes whose answer is known."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclei.reporting.eda.annotation_checks import (
    REASONS,
    find_holes,
    find_suspicious,
    find_unlabelled,
    measure_nuclei,
)
from nuclei.synthetic.images import make_image

MODALITIES = ("small_fluorescence", "large_fluorescence", "purple_tissue")


def discs(*places, shape=(120, 160)):
    """Label map of discs, each (x, y, radius)."""
    label_map = np.zeros(shape, np.int32)
    for label, (x, y, radius) in enumerate(places, start=1):
        cv2.circle(label_map, (x, y), radius, label, -1)
    return label_map


def row_of(count, radius=8):
    return [(12 + 20 * number, 40, radius) for number in range(count)]


def reasons(label_map, unlabelled=0):
    return {finding.reason: finding for finding in find_suspicious(measure_nuclei(label_map), unlabelled)}


def test_two_discs_side_by_side_touch_and_a_third_does_not():
    label_map = discs((30, 40, 10), (51, 40, 10), (120, 80, 10))
    nuclei = measure_nuclei(label_map)
    assert (nuclei.touching_sides > 0).tolist() == [True, True, False]
    assert nuclei.touching_sides[0] == nuclei.touching_sides[1] > 0


def test_two_squares_with_a_common_side_touch_along_a_quarter_of_their_rims():
    label_map = np.zeros((40, 60), np.int32)
    label_map[10:20, 10:20], label_map[10:20, 20:30] = 1, 2
    nuclei = measure_nuclei(label_map)
    assert nuclei.sides.tolist() == [40, 40]
    assert nuclei.touching_sides.tolist() == [10, 10]


def test_a_row_of_background_between_two_nuclei_parts_them():
    label_map = np.zeros((40, 60), np.int32)
    label_map[10:20, 10:20], label_map[10:20, 21:31] = 1, 2
    assert measure_nuclei(label_map).touching_sides.tolist() == [0, 0]


def test_the_image_edge_is_no_rim_and_cuts():
    label_map = np.zeros((40, 60), np.int32)
    label_map[:10, 10:20] = 1
    nuclei = measure_nuclei(label_map)
    assert nuclei.sides.tolist() == [30]
    assert nuclei.cut.tolist() == [10]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["flip", "transpose", "gaps"]))
def test_measures_stay_when_the_map_is_mirrored_turned_or_renumbered(seed, change):
    label_map = make_image("small_fluorescence", seed, 64, 80)[1]
    other = {"flip": label_map[:, ::-1], "transpose": label_map.T, "gaps": label_map * 3}[change]
    before, after = measure_nuclei(label_map), measure_nuclei(np.ascontiguousarray(other))
    assert (after.labels == before.labels * (3 if change == "gaps" else 1)).all()
    for field in ("areas", "sides", "touching_sides", "cut", "pieces", "enclosed"):
        assert (getattr(before, field) == getattr(after, field)).all(), field


def test_a_map_without_nuclei_measures_nothing_and_is_reported():
    label_map = np.zeros((30, 30), np.int32)
    assert len(measure_nuclei(label_map).areas) == 0
    assert reasons(label_map)["few"].number == 0


def test_sound_discs_are_not_suspected():
    assert reasons(discs(*row_of(6))) == {}


def test_a_disc_with_a_hole_is_reported_with_the_size_of_the_hole():
    label_map = discs(*row_of(6))
    label_map[39:42, 52:54] = 0
    found = reasons(label_map)
    assert list(found) == ["hole"]
    assert found["hole"].labels == [3]
    assert found["hole"].words == "1 nucleus: 6 pixels"


def test_the_holes_of_a_nucleus_are_what_it_encloses():
    label_map = discs(*row_of(6))
    label_map[39:42, 52:54] = 0
    label_map[40, 33] = 0
    holes = find_holes(label_map, [3])
    assert np.argwhere(holes == 3).tolist() == [[row, column] for row in (39, 40, 41) for column in (52, 53)]
    assert (holes[holes != 3] == 0).all()


def test_a_nucleus_inside_another_one_is_a_hole_of_the_outer():
    label_map = discs((40, 40, 20), *[(x, 90, 12) for x in (20, 50, 80, 110)])
    cv2.circle(label_map, (40, 40), 8, 9, -1)
    assert reasons(label_map)["hole"].labels == [1]


def test_a_notch_that_is_open_to_the_background_is_no_hole():
    label_map = discs(*row_of(6))
    label_map[40:, 52] = 0
    assert "hole" not in reasons(label_map)


def test_a_mask_in_two_pieces_is_reported():
    label_map = discs(*row_of(6), (40, 90, 8), (80, 90, 8))
    label_map[label_map == 8] = 7
    assert reasons(label_map)["pieces"].labels == [7]


def test_sizes_far_from_the_median_are_reported_unless_the_image_cuts_a_small_one():
    label_map = discs(*row_of(6), (60, 85, 24), (120, 90, 1), (0, 100, 1))
    found = reasons(label_map)
    assert found["huge"].labels == [7]
    assert found["tiny"].labels == [8]


def test_two_nuclei_are_few_and_three_are_not():
    assert "few" in reasons(discs(*row_of(2)))
    assert "few" not in reasons(discs(*row_of(3)))


def test_a_single_unlabelled_object_is_taken_for_debris():
    label_map = discs(*row_of(6))
    assert "unlabelled" not in reasons(label_map, 1)
    assert reasons(label_map, 2)["unlabelled"].number == 2


def test_reasons_come_in_their_order():
    label_map = discs((40, 40, 20))
    label_map[40, 40] = 0
    found = [finding.reason for finding in find_suspicious(measure_nuclei(label_map), 5)]
    assert found == ["unlabelled", "few", "hole"] == [reason for reason in REASONS if reason in found]


@pytest.mark.parametrize("modality", MODALITIES)
def test_nuclei_whose_annotation_is_taken_away_are_found_and_others_are_not(modality):
    away = found = alarms = 0
    for seed in range(4):
        image, label_map = make_image(modality, seed, 256, 256)
        alarms += int(find_unlabelled(image, label_map).max())
        gone = np.random.default_rng(seed).random(label_map.max() + 1) < 0.3
        gone[0] = False
        objects = find_unlabelled(image, np.where(gone[label_map], 0, label_map))
        away += int(gone.sum())
        found += len(np.unique(label_map[(objects > 0) & gone[label_map]]))
    assert found >= away / 3
    assert alarms <= away / 10


def test_where_nothing_is_annotated_the_bright_nuclei_are_unlabelled():
    image, label_map = make_image("small_fluorescence", 2, 256, 256)
    assert find_unlabelled(image, np.zeros_like(label_map)).max() >= label_map.max() / 3


def test_an_image_of_one_colour_has_nothing_unlabelled():
    assert find_unlabelled(np.full((50, 50, 3), 90, np.uint8), np.zeros((50, 50), np.int32)).max() == 0
