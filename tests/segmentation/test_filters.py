"""Objects that are left out by size or as fibres, and that real shapes of nuclei stay."""

import cv2
import numpy as np
import pytest

from nuclei.io.picture import PixelSize
from nuclei.postprocessing.label_ops import count_areas
from nuclei.segmentation.filters import LeftOut, find_fibres, leave_out, read_area
from nuclei.synthetic.images import make_image


def draw_nuclei(axes=(9, 7)):
    """A label map with sixteen elliptic nuclei."""
    label_map = np.zeros((240, 240), np.int32)
    for number in range(16):
        place = (30 + 60 * (number % 4), 30 + 60 * (number // 4))
        cv2.ellipse(label_map, place, axes, 37 * number, 0, 360, number + 1, -1)
    return label_map


def find(label_map):
    return np.flatnonzero(find_fibres(label_map, count_areas(label_map))).tolist()


def draw_fibre(label_map, label, points, width=5):
    cv2.polylines(label_map, [np.array(points, np.int32)], False, label, width)
    return label_map


def test_areas_outside_of_the_limits_are_left_out_and_the_rest_is_numbered_again():
    label_map = np.zeros((20, 40), np.int32)
    label_map[1:3, 1:3], label_map[1:7, 5:11], label_map[1:19, 15:35] = 1, 2, 3
    kept = label_map == 2
    assert leave_out(label_map, 5, 100, keep_fibres=True) == (1, LeftOut(small=1, large=1))
    assert np.array_equal(label_map, kept.astype(np.int32))


def test_a_limit_is_still_kept():
    label_map = np.zeros((20, 40), np.int32)
    label_map[1:7, 5:11] = 1
    assert leave_out(label_map, 36, 36, keep_fibres=False) == (1, LeftOut())


def test_square_micrometres_count_by_both_sides_of_a_pixel():
    area = read_area("20um2", "MIN_AREA")
    assert area is not None
    assert area.pixels(PixelSize(0.5, 0.25)) == 160
    with pytest.raises(ValueError, match=r"20 µm² needs the size of a pixel.*PIXEL_SIZE="):
        area.pixels(None)
    assert read_area(40, "MIN_AREA").pixels(None) == read_area("40", "MIN_AREA").pixels(None) == 40


def test_a_straight_and_a_curved_fibre_are_found_beside_nuclei():
    label_map = draw_nuclei()
    draw_fibre(label_map, 17, [(0, 60), (239, 58)])
    wave = [(x, 120 + 20 * np.sin(x / 30)) for x in range(5, 235, 5)]
    draw_fibre(label_map, 18, wave)
    assert find(label_map) == [17, 18]


def test_thin_pieces_that_touch_a_fibre_belong_to_it_and_nuclei_that_touch_it_do_not():
    label_map = draw_nuclei()
    draw_fibre(label_map, 17, [(0, 20), (160, 20)])
    draw_fibre(label_map, 18, [(164, 20), (190, 20)])
    touched = set(np.unique(label_map[17:24])) - {0, 17, 18}
    assert touched
    assert find(label_map) == [17, 18]


@pytest.mark.parametrize("axes", [(9, 7), (16, 4), (24, 3)])
def test_elongated_nuclei_are_no_fibres_where_all_are_elongated(axes):
    assert find(draw_nuclei(axes)) == []


def test_no_generated_nucleus_is_a_fibre():
    for modality in ("small_fluorescence", "purple_tissue", "grey_tissue"):
        for seed in range(4):
            assert find(make_image(modality, seed, 160, 160)[1]) == []


def test_an_empty_plane_has_no_fibre():
    label_map = np.zeros((8, 8), np.int32)
    assert leave_out(label_map, 5, None, keep_fibres=False) == (0, LeftOut())
