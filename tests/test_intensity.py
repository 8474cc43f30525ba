import numpy as np
import pytest

from nuclei.intensity import normalise, stretch

IMAGE = np.random.default_rng(0).integers(20, 60, (31, 37, 3), np.uint8)


def test_a_stretched_image_uses_the_whole_range():
    stretched = stretch(IMAGE, 0, 100)
    assert stretched.min() == 0
    assert stretched.max() == 255


def test_stretching_ignores_a_change_of_brightness_and_contrast():
    brighter = (IMAGE.astype(int) * 3 + 40).astype(np.uint8)
    difference = stretch(IMAGE, 0, 100).astype(int) - stretch(brighter, 0, 100)
    assert np.abs(difference).max() <= 1


def test_a_constant_image_stays_as_it_is():
    constant = np.full((8, 8, 3), 7, np.uint8)
    assert np.array_equal(stretch(constant, 1, 99), constant)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("normalisation", ["half", "imagenet", "z_score"])
def test_inputs_are_float_channels_first(normalisation, channels):
    values = normalise(IMAGE, normalisation, channels)
    assert values.shape == (channels, 31, 37)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()


def test_normalisations_have_their_stated_range():
    extremes = np.zeros((2, 2, 3), np.uint8)
    extremes[0] = 255
    assert normalise(extremes, "half", 3).min() == -1
    assert normalise(extremes, "half", 3).max() == 1
    assert normalise(IMAGE, "z_score", 3).mean() == pytest.approx(0, abs=1e-4)
    assert normalise(IMAGE, "z_score", 3).std() == pytest.approx(1, abs=1e-3)
