import base64

import cv2
import numpy as np
import pytest

from nuclei.evaluation.metric import error_counts
from nuclei.reporting.overlays import (
    KIND_COLOURS,
    draw_comparison,
    embed_image,
    find_outlines,
    nucleus_kinds,
    svg_path,
)
from nuclei.synthetic.images import make_image


def boxes(*corners):
    """Label map of boxes, each (top, bottom, left, right)."""
    label_map = np.zeros((40, 60), np.int32)
    for label, (top, bottom, left, right) in enumerate(corners, start=1):
        label_map[top:bottom, left:right] = label
    return label_map


TRUTH = boxes((2, 12, 2, 12), (2, 12, 20, 30), (20, 30, 2, 22), (20, 30, 30, 38), (20, 30, 38, 46))
PREDICTED = boxes((2, 12, 2, 12), (2, 12, 45, 55), (20, 30, 2, 12), (20, 30, 12, 22), (20, 30, 30, 46))


def test_each_nucleus_has_the_kind_that_was_made_of_it():
    assert nucleus_kinds(TRUTH, PREDICTED) == (
        ["hit", "missed", "split", "missed", "missed"],
        ["hit", "extra", "extra", "extra", "merged"],
    )


@pytest.mark.parametrize("seed", range(3))
def test_splits_and_merges_are_those_that_the_scores_count(seed):
    truth, predicted = (make_image("small_fluorescence", number, 128, 128)[1] for number in (seed, seed + 1))
    predicted = np.where(np.random.default_rng(seed).random(truth.shape) < 0.5, truth, predicted)
    counts, (annotated, made) = error_counts(truth, predicted), nucleus_kinds(truth, predicted)
    assert (annotated.count("split"), made.count("merged")) == (counts["split"], counts["merged"])


def test_an_outline_filled_is_the_nucleus():
    label_map = make_image("small_fluorescence", 3, 128, 160)[1]
    drawn = np.zeros(label_map.shape, np.int32)
    for label, outlines in zip(np.unique(label_map)[1:], find_outlines(label_map, 0), strict=True):
        cv2.fillPoly(drawn, outlines, int(label))
    filled = [
        cv2.fillPoly(np.zeros(label_map.shape, np.uint8), outlines, 1) for outlines in find_outlines(label_map)
    ]
    assert (drawn == label_map).mean() > 0.999  # holes of a nucleus are filled
    for label, mask in zip(np.unique(label_map)[1:], filled, strict=True):
        exact = label_map == label
        assert np.count_nonzero(exact != mask) <= 2 + cv2.arcLength(np.argwhere(exact).astype(np.float32), True)


def test_labels_with_gaps_keep_their_order():
    label_map = np.where(TRUTH == 2, 0, TRUTH)
    assert [outline[0].min(axis=0).tolist() for outline in find_outlines(label_map)] == [
        [2, 2], [2, 20], [30, 20], [38, 20]
    ]  # fmt: skip


def test_a_path_goes_through_the_points_of_the_outline():
    assert svg_path([np.array([[3, 4], [7, 4], [7, 2]])]) == "M3 4l4 0 0-2z"
    assert svg_path([np.array([[3, 4]]), np.array([[1, 1], [0, 2]])]) == "M3 4l0 0zM1 1l-1 1z"


def test_an_embedded_image_is_the_image_and_no_larger_than_asked_for():
    image = make_image("purple_tissue", 0, 100, 200)[0]
    for side, shape in ((400, (100, 200)), (50, (25, 50))):
        encoded = base64.b64decode(embed_image(image, side, 95).removeprefix("data:image/webp;base64,"))
        shown = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert shown.shape[:2] == shape
        expected = cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(shown.astype(int) - expected).mean() < 6


def test_the_comparison_shows_the_image_as_it_is_and_each_kind_in_its_colour():
    image = np.full((40, 60, 3), 10, np.uint8)
    drawn = draw_comparison(image, TRUTH, PREDICTED)
    assert drawn.shape == (40, 180, 3)
    assert (drawn[:, :60] == image).all()
    assert tuple(drawn[2, 60 + 20]) == KIND_COLOURS["missed"]
    assert tuple(drawn[20, 60 + 2]) == KIND_COLOURS["split"]
    assert tuple(drawn[2, 120 + 45]) == KIND_COLOURS["extra"]
    assert tuple(drawn[20, 120 + 30]) == KIND_COLOURS["merged"]
    assert tuple(drawn[2, 120 + 2]) == KIND_COLOURS["hit"]


def test_a_strip_keeps_a_pixel_of_its_short_side_when_it_is_made_smaller():
    encoded = base64.b64decode(embed_image(np.zeros((2, 4000, 3), np.uint8), 320, kind="jpeg").split(",")[1])
    assert cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR).shape == (1, 320, 3)
