import numpy as np
import pytest

from nuclei.config import AugmentationConfig
from nuclei.data.augmentation import PRESETS, SCALES, Augmentation, draw_crop, paste_nuclei
from nuclei.synthetic.images import make_image

IMAGE, LABEL_MAP = make_image("purple_tissue", 0, 128, 160)


@pytest.mark.parametrize("preset", ["nuclei", "medical", "none"])
def test_the_same_seed_gives_the_same_change(preset):
    augmentation = Augmentation(AugmentationConfig(preset=preset, copy_paste=0.5))
    for seed in range(12):
        one, other = (augmentation(IMAGE, LABEL_MAP, seed) for _ in range(2))
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])
        assert one[0].dtype == np.uint8
        assert one[1].dtype == np.int32


def test_the_preset_none_changes_nothing():
    image, label_map = Augmentation(AugmentationConfig(preset="none"))(IMAGE, LABEL_MAP, 1)
    assert np.array_equal(image, IMAGE)
    assert np.array_equal(label_map, LABEL_MAP)


def test_changes_come_independently_of_each_other():
    square, labels = IMAGE[:64, :64], LABEL_MAP[:64, :64]
    augmentation = Augmentation(AugmentationConfig())
    values = np.sort(square.ravel())
    changed = (augmentation(square, labels, seed)[0] for seed in range(200))
    only_turned = [np.array_equal(np.sort(image.ravel()), values) for image in changed]
    # the chances that geometry, colour, inversion, contrast and blur stay out, multiplied; the
    # least of them is 0.5
    assert np.mean(only_turned) == pytest.approx(0.7 * 0.7 * 0.9 * 0.5 * 0.75, abs=0.1)


def test_labels_survive_every_change_of_geometry():
    square, labels = IMAGE[:128, :128], LABEL_MAP[:128, :128]
    augmentation = Augmentation(AugmentationConfig())
    for seed in range(30):
        _, changed = augmentation(square, labels, seed)
        assert set(np.unique(changed)) <= set(np.unique(labels))


@pytest.mark.parametrize(("height", "width"), [(128, 160), (40, 50), (64, 64)])
@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.5, 0.5), (2.0, 2.0)])
def test_a_crop_has_its_side_whatever_the_image_and_the_zoom(height, width, scales):
    crop, labels = draw_crop(
        IMAGE[:height, :width], LABEL_MAP[:height, :width], 64, scales, np.random.default_rng(0)
    )
    assert crop.shape == (64, 64, 3)
    assert labels.shape == (64, 64)
    assert set(np.unique(labels)) <= set(np.unique(LABEL_MAP[:height, :width]))


def test_a_zoom_enlarges_the_nuclei():
    def median_area(scale):
        crops = [
            draw_crop(IMAGE, LABEL_MAP, 96, (scale, scale), np.random.default_rng(i))[1] for i in range(10)
        ]
        return np.median(np.concatenate([np.unique(crop, return_counts=True)[1][1:] for crop in crops]))

    assert 2 < median_area(1.6) / median_area(0.8) < 8


@pytest.mark.parametrize("scale", [0.7, 0.83, 1.13, 1.41, 1.77])
def test_a_zoom_keeps_the_labels_on_the_image(scale):
    rows, columns = np.mgrid[:200, :200]
    label_map = (np.hypot(rows - 100, columns - 90) < 40).astype(np.int32)
    image = np.repeat((255 * label_map).astype(np.uint8)[..., None], 3, axis=2)
    side = round(200 * scale)
    crop, labels = draw_crop(image, label_map, side, (scale, scale), np.random.default_rng(0))
    centres = [np.argwhere(mask).mean(axis=0) for mask in (crop[..., 0] > 127, labels > 0)]
    assert np.abs(np.subtract(*centres)).max() < 0.15


def split_image(side):
    """An image whose brightness shows its label map: three large areas of different brightness."""
    rows, columns = np.mgrid[:side, :side]
    label_map = np.zeros((side, side), np.int32)
    label_map[np.hypot(rows - 0.3 * side, columns - 0.35 * side) < 0.22 * side] = 1
    label_map[np.hypot(rows - 0.7 * side, columns - 0.62 * side) < 0.26 * side] = 2
    image = np.array([20, 120, 220], np.uint8)[label_map]
    return np.repeat(image[..., None], 3, axis=2), label_map


def alignment(image, label_map):
    """Fraction of the pixels' variance that the label map explains: 1 if brightness follows it."""
    grey = image.astype(float).mean(axis=2)
    labels = np.unique(label_map, return_inverse=True)[1].ravel()
    means = np.bincount(labels, grey.ravel()) / np.bincount(labels)
    return 1 - np.var(grey.ravel() - means[labels]) / np.var(grey)


@pytest.mark.parametrize("preset", PRESETS)
def test_image_and_label_map_stay_aligned_through_crop_scale_and_augmentation(preset):
    image, label_map = split_image(160)
    augmentation = Augmentation(AugmentationConfig(preset=preset, copy_paste=0.3))
    found = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        crop, labels = draw_crop(image, label_map, 128, SCALES[preset], generator)
        crop, labels = augmentation(crop, labels, seed)
        found.append(alignment(crop, labels))
    # noise, blur and pasted nuclei take a little; any flip of one of the two alone takes most
    assert np.mean(found) > 0.95
    assert np.quantile(found, 0.1) > 0.9


def test_pasted_nuclei_are_new_ones_that_cover_no_other():
    image, label_map = paste_nuclei(IMAGE, LABEL_MAP, np.random.default_rng(0))
    there = LABEL_MAP > 0
    assert label_map.max() > LABEL_MAP.max()
    assert np.array_equal(label_map[there], LABEL_MAP[there])
    assert np.array_equal(image[there], IMAGE[there])
    assert not np.array_equal(image, IMAGE)


def test_nothing_is_pasted_where_there_are_no_nuclei():
    image, label_map = paste_nuclei(IMAGE, np.zeros_like(LABEL_MAP), np.random.default_rng(0))
    assert np.array_equal(image, IMAGE)
    assert not label_map.any()
