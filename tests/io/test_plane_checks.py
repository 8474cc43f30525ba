"""Planes that may be no pictures of nuclei are told from those that are."""

import numpy as np
import pytest
import tifffile
from picture_files import notes, read_one

from nuclei.io.plane_checks import find_doubts
from nuclei.synthetic.images import make_image

IMAGE, LABELS = make_image("small_fluorescence", 3, 96, 128)
GREY = np.ascontiguousarray(IMAGE[..., 0])
TISSUE, _ = make_image("purple_tissue", 3, 96, 128)


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(GREY, id="fluorescence"),
        pytest.param(GREY // 16, id="few grey levels"),
        pytest.param(np.minimum(GREY.astype(int) * 4, 255).astype(np.uint8), id="saturated"),
        pytest.param(np.maximum(GREY.astype(int) - 20, 0), id="background cut off"),
        pytest.param(IMAGE, id="grey as colour"),
        pytest.param(np.stack([0 * GREY, 0 * GREY, GREY], axis=-1), id="one colour"),
        pytest.param(TISSUE, id="stained tissue"),
    ],
)
def test_pictures_of_nuclei_raise_no_doubt(pixels):
    assert find_doubts(pixels) == ()


@pytest.mark.parametrize("pixels", [LABELS, (LABELS > 0) * np.float32(1), (LABELS == 0) * np.uint8(255)])
def test_masks_and_label_maps_are_recognised(pixels):
    (said,) = find_doubts(pixels)
    assert "mask or label map" in said


def test_a_dark_picture_of_two_stains_names_its_colours():
    (said,) = find_doubts(np.stack([GREY[::-1], 0 * GREY, GREY], axis=-1))
    assert said.startswith("red and blue show different things")
    assert "CHANNEL=blue" in said


def test_an_empty_plane_is_said_in_the_notes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((60, 80), 7, np.uint16))
    picture = read_one(tmp_path / "a.tif")
    assert picture.doubts == ("all pixels have the value 7",)
    assert picture.doubts[0] in notes(picture)
