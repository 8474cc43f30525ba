import numpy as np
import pytest

from nuclei.data.appearance import (
    MIN_CONTRAST,
    add_haze,
    crowd_nuclei,
    dim_nuclei,
    is_fluorescence,
    is_stained,
    jitter_exposure,
    jitter_stains,
    stain_to_fluorescence,
)
from nuclei.synthetic.images import make_image

FLUORESCENCE, NUCLEI = make_image("small_fluorescence", 0, 192, 192)
TISSUE, TISSUE_NUCLEI = make_image("purple_tissue", 1, 192, 192)


def generator():
    return np.random.default_rng(3)


def contrasts(image):
    grey = image.mean(axis=2)
    background = np.median(grey[NUCLEI == 0])
    return np.array([grey[label == NUCLEI].mean() - background for label in range(1, NUCLEI.max() + 1)])


def test_some_nuclei_are_dimmed_and_the_others_keep_their_contrast():
    before = contrasts(FLUORESCENCE)
    after = contrasts(dim_nuclei(FLUORESCENCE, NUCLEI, (0.1, 0.3), generator()))
    dimmed = after < 0.6 * before
    assert 0.1 < dimmed.mean() < 0.65
    assert np.abs(after[~dimmed] / before[~dimmed] - 1).max() < 0.35
    assert (after[dimmed] > MIN_CONTRAST / 3).all()


def test_crowding_adds_nuclei_and_keeps_those_that_are_there():
    image, label_map = crowd_nuclei(FLUORESCENCE, NUCLEI, generator())
    np.testing.assert_array_equal(label_map[NUCLEI > 0], NUCLEI[NUCLEI > 0])
    added = (label_map > 0) & (NUCLEI == 0)
    assert added.sum() > 0.2 * (NUCLEI > 0).sum()
    assert image[added].mean() > FLUORESCENCE[added].mean() + 10


def test_haze_brightens_the_background_without_clipping():
    hazy = add_haze(FLUORESCENCE, generator())
    assert hazy[NUCLEI == 0].mean() > FLUORESCENCE[NUCLEI == 0].mean()
    assert (hazy == 255).mean() <= (FLUORESCENCE == 255).mean() + 0.01


def test_exposure_keeps_the_order_of_grey_levels():
    changed = jitter_exposure(FLUORESCENCE, generator())
    order = np.argsort(FLUORESCENCE.ravel(), kind="stable")
    assert (np.diff(changed.ravel()[order].astype(int)) >= 0).all()
    assert (changed != FLUORESCENCE).any()


def test_stains_change_colours_and_leave_white_nearly_white():
    changed = jitter_stains(TISSUE, generator())
    assert np.abs(changed.astype(int) - TISSUE).mean() > 2
    assert jitter_stains(np.full((8, 8, 3), 255, np.uint8), generator()).min() > 225


@pytest.mark.parametrize(("image", "fluorescent"), [(FLUORESCENCE, True), (TISSUE, False)])
def test_fluorescence_and_stained_tissue_are_told_apart(image, fluorescent):
    assert is_fluorescence(image) == fluorescent
    assert is_stained(image) == (not fluorescent)


def test_a_crop_without_nuclei_stays_as_it_is_when_dimmed():
    empty = np.zeros((32, 32), np.int32)
    image = np.full((32, 32, 3), 7, np.uint8)
    np.testing.assert_array_equal(dim_nuclei(image, empty, (0.1, 0.6), generator()), image)


def test_tissue_rendered_as_fluorescence_has_bright_nuclei_on_a_dark_background():
    rendered = stain_to_fluorescence(TISSUE, generator())
    assert is_fluorescence(rendered)
    assert not is_stained(rendered)
    grey = rendered[..., 0].astype(float)
    assert grey[TISSUE_NUCLEI > 0].mean() > 2 * grey[TISSUE_NUCLEI == 0].mean()


def test_an_empty_field_rendered_as_fluorescence_stays_dark():
    rendered = stain_to_fluorescence(np.full((16, 16, 3), 240, np.uint8), generator())
    assert rendered.max() < 128
