import numpy as np
import pytest

from nuclei.synthetic import optics


@pytest.mark.parametrize("sigma", [1.0, 2.6, 14, 120])
def test_noise_fills_its_shape_and_is_smooth_over_its_sigma(sigma):
    noise = optics.smooth_noise(np.random.default_rng(0), (250, 130), sigma)
    assert noise.shape == (250, 130)
    step = np.diff(noise, axis=0).std()
    # of Gaussian-filtered white noise the derivative has the deviation 1 / (sqrt(2) sigma)
    assert 0.5 / (np.sqrt(2) * sigma) < step < 1.6 / (np.sqrt(2) * sigma)


def test_fibres_are_longer_than_wide():
    texture = optics.fibres(np.random.default_rng(0), (200, 200), 4)
    assert texture.min() >= 0
    assert texture.max() <= 1
    rows, columns = np.gradient(texture)
    tensor = np.array(
        [[(rows * rows).mean(), (rows * columns).mean()], [(rows * columns).mean(), (columns**2).mean()]]
    )
    small, large = np.linalg.eigvalsh(tensor)
    assert large > 2 * small


def test_debris_lies_in_heaps_and_without_any_there_is_none():
    rng = np.random.default_rng(0)
    assert not optics.debris(rng, (200, 200), 0, 2.0).any()
    crumbs = optics.debris(rng, (200, 200), 3, 2.0)
    assert crumbs.max() > 0.3
    assert 0 < (crumbs > 0.1).mean() < 0.02


def test_nuclei_vary_and_the_background_stays_empty():
    label_map = np.repeat(np.arange(60, dtype=np.int32), 5).reshape(20, 15)
    factors = optics.vary(np.random.default_rng(0), label_map, 0.3)
    assert not factors[label_map == 0].any()
    assert len(np.unique(factors)) == 60
    assert np.log(factors[label_map > 0]).std() == pytest.approx(0.3, rel=0.3)


@pytest.mark.parametrize("unfocused", [0.0, 1.0])
def test_the_lens_keeps_all_light_and_blurs_nuclei_out_of_focus_more(unfocused):
    label_map = np.zeros((101, 101), np.int32)
    label_map[50, 50] = 1
    seen = optics.focus(np.random.default_rng(0), label_map, label_map.astype(float), unfocused)
    assert seen.sum() == pytest.approx(1, abs=0.01)
    rows, columns = np.indices(seen.shape) - 50
    width = np.sqrt((seen * (rows**2 + columns**2)).sum() / 2)
    assert (1.4 < width < 3.7) if unfocused else (0.6 < width < 1.3)


def test_twice_the_stain_lets_through_the_square_of_the_light():
    once, twice = (optics.absorb((1, 1, 1), (np.full((2, 2), c), (0.7, 1.5, 0.2))) for c in (1.0, 2.0))
    np.testing.assert_allclose(twice, once**2)
    np.testing.assert_allclose(
        optics.absorb((240, 230, 220), (np.zeros((1, 1)), (1, 1, 1))), [[[240, 230, 220]]]
    )


@pytest.mark.parametrize("level", [20, 180])
def test_noise_of_a_photograph_grows_with_the_root_of_the_light(level):
    image = optics.photograph(np.random.default_rng(0), np.full((200, 200), float(level)), 4.0, 1.0)
    assert image.shape == (200, 200, 3)
    assert (image[..., 0] == image[..., 2]).all()
    assert image[..., 0].mean() == pytest.approx(level, abs=0.2)
    assert image[..., 0].std() == pytest.approx(np.sqrt(level / 4 + 1), rel=0.05)


def test_a_photograph_is_clipped_not_wrapped():
    image = optics.photograph(np.random.default_rng(0), np.array([[-50.0, 900.0]]), 100.0, 0.0)
    np.testing.assert_array_equal(image[0, :, 0], [0, 255])
