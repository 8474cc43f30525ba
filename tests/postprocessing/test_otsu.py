import numpy as np
import numpy.typing as npt
import pytest

from nuclei.evaluation import metric
from nuclei.postprocessing.otsu import MIN_AREA, nuclear_brightness, otsu_watershed
from nuclei.synthetic import images


def disc(row: float, column: float, radius: float, size: int = 96) -> npt.NDArray[np.bool_]:
    rows, columns = np.ogrid[:size, :size]
    return np.hypot(rows - row, columns - column) <= radius


def paint(
    mask: npt.NDArray[np.bool_], inside: object = 140, outside: object = 12, noise: float = 3
) -> npt.NDArray[np.uint8]:
    image = np.where(mask[..., None], np.array(inside, float), np.array(outside, float)) * np.ones(3)
    grain = np.random.default_rng(0).normal(0, noise, mask.shape)[..., None]
    return np.clip(image + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("noise", [0, 3])
def test_an_isolated_bright_disc_is_found_exactly(noise):
    mask = disc(40, 52, 11)
    label_map = otsu_watershed(paint(mask, noise=noise))
    assert label_map.dtype == np.int32
    np.testing.assert_array_equal(label_map, mask.astype(np.int32))


@pytest.mark.parametrize(
    ("inside", "outside"), [(60, 230), ((110, 50, 150), (225, 205, 228)), ((20, 160, 60), (4, 6, 5))]
)
def test_dark_and_coloured_discs_are_found_exactly(inside, outside):
    mask = disc(40, 52, 11)
    np.testing.assert_array_equal(otsu_watershed(paint(mask, inside, outside)), mask.astype(np.int32))


def test_the_negative_of_a_picture_gives_the_same_label_map():
    image, _ = images.make_image("small_fluorescence", 3, 128, 160)
    np.testing.assert_array_equal(otsu_watershed(255 - image), otsu_watershed(image))


def test_nuclei_are_brighter_than_their_surroundings_in_every_modality():
    for modality, size in images.SIZES.items():
        image, truth = images.make_image(modality, 5, *size)
        brightness = nuclear_brightness(image)
        assert brightness[truth > 0].mean() > brightness[truth == 0].mean() + 10, modality


@pytest.mark.parametrize(("distance", "angle"), [(20, 0.0), (20, 0.8), (22, 1.57), (18, 2.4)])
def test_two_touching_discs_are_parted_between_their_centres(distance, angle):
    shift = np.array([np.sin(angle), np.cos(angle)]) * distance / 2
    centres = [(48 + shift[0], 48 + shift[1]), (48 - shift[0], 48 - shift[1])]
    first, second = disc(*centres[0], 11), disc(*centres[1], 11)
    label_map = otsu_watershed(paint(first | second))
    assert label_map.max() == 2
    truth = np.where(first, 1, np.where(second, 2, 0))
    assert metric.average_precision(truth, label_map)[6] == 1  # both with an IoU above 0.8


def test_a_long_nucleus_stays_whole():
    rows, columns = np.ogrid[:96, :96]
    mask = np.hypot((rows - 48) / 9, (columns - 48) / 24) <= 1
    assert otsu_watershed(paint(mask)).max() == 1


def test_a_hole_in_a_nucleus_is_filled():
    mask = disc(48, 48, 15)
    label_map = otsu_watershed(paint(mask & ~disc(48, 48, 5)))
    np.testing.assert_array_equal(label_map > 0, mask)


def test_specks_are_dropped_and_the_others_numbered_without_gaps():
    speck, nuclei = disc(10, 10, 2), disc(30, 70, 9) | disc(70, 30, 9)
    assert speck.sum() < MIN_AREA
    label_map = otsu_watershed(paint(speck | nuclei))
    assert sorted(np.unique(label_map)) == [0, 1, 2]
    np.testing.assert_array_equal(label_map > 0, nuclei)


def test_a_nucleus_at_the_border_is_found():
    mask = disc(0, 50, 12)
    np.testing.assert_array_equal(otsu_watershed(paint(mask)) > 0, mask)


@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_blank_image_has_no_nuclei(level):
    label_map = otsu_watershed(np.full((40, 56, 3), level, np.uint8))
    assert label_map.shape == (40, 56)
    assert not label_map.any()


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8)]
)
def test_what_is_no_rgb_image_is_refused(image):
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8"):
        otsu_watershed(image)


def test_it_is_a_floor_on_the_imagined_set_neither_useless_nor_good():
    samples = list(images.make_samples("test", 10, 0))
    scores = [metric.average_precision(s.label_map, otsu_watershed(s.image)).mean() for s in samples]
    assert 0.3 < np.mean(scores) < 0.6
