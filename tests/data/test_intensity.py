import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nuclei.config import IntensityConfig
from nuclei.data.intensity import normalise, stretch, to_display, window_image

IMAGE = np.random.default_rng(0).integers(20, 60, (31, 37, 3), np.uint8)
TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")
SOFT_TISSUE = IntensityConfig(window="level", window_level=40, window_width=400)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_stretched_image_uses_the_whole_range(dtype):
    stretched = stretch(IMAGE.astype(dtype), 0, 100)
    assert stretched.dtype == np.uint8
    assert stretched.min() == 0
    assert stretched.max() == 255


@pytest.mark.parametrize("dtype", TYPES)
def test_the_type_that_holds_the_values_does_not_change_the_window(dtype):
    difference = stretch(IMAGE.astype(dtype), 1, 99).astype(int) - stretch(IMAGE, 1, 99)
    assert np.abs(difference).max() <= 1


def test_stretching_ignores_a_change_of_brightness_and_contrast():
    brighter = (IMAGE.astype(int) * 3 + 40).astype(np.uint8)
    difference = stretch(IMAGE, 0, 100).astype(int) - stretch(brighter, 0, 100)
    assert np.abs(difference).max() <= 1
    for dtype, factor, offset in (("uint16", 900, 3000), ("int16", 400, -20_000), ("float32", 1e-6, -3.0)):
        other = (IMAGE.astype(float) * factor + offset).astype(dtype)
        assert np.abs(stretch(other, 0, 100).astype(int) - stretch(IMAGE, 0, 100)).max() <= 1, dtype


def test_a_constant_image_stays_as_it_is():
    constant = np.full((8, 8, 3), 7, np.uint8)
    assert np.array_equal(stretch(constant, 1, 99), constant)
    for dtype in ("uint16", "int16", "float32"):
        assert not stretch(constant.astype(dtype), 1, 99).any()


def test_nuclei_rarer_than_the_percentile_are_not_stretched_away():
    for dtype in ("uint16", "int16", "float32"):
        image = np.zeros((100, 100, 3), dtype)
        image[50, 50] = 900
        assert stretch(image, 0.1, 99.9)[50, 50].tolist() == [255, 255, 255]


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_hounsfield_units_are_cut_at_the_edges_of_the_window(dtype):
    scan = np.array([[-1000, -160, 40, 240, 3000]], dtype)
    air, black, middle, white, bone = window_image(scan, SOFT_TISSUE)[0, :, 0].tolist()
    assert (air, black, white, bone) == (0, 0, 255, 255)
    assert middle in (127, 128)


def test_a_level_window_is_the_same_for_every_image():
    air, both = np.full((4, 4), -1000, np.int16), np.full((4, 4), -1000, np.int16)
    both[0] = 1000
    assert np.array_equal(window_image(air, SOFT_TISSUE)[1:], window_image(both, SOFT_TISSUE)[1:])


@pytest.mark.parametrize("config", [IntensityConfig(), SOFT_TISSUE, IntensityConfig(window="none")])
def test_grey_becomes_colour_and_transparency_goes(config):
    grey = IMAGE[..., 0]
    windowed = window_image(grey, config)
    assert windowed.shape == (31, 37, 3)
    assert np.array_equal(window_image(grey[..., None], config), windowed)
    assert (windowed == windowed[..., :1]).all()
    opaque = np.dstack([IMAGE, np.full((31, 37), 255, np.uint8)])
    assert np.array_equal(window_image(opaque, config), window_image(IMAGE, config))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(TYPES).flatmap(
        lambda name: arrays(
            name,
            array_shapes(min_dims=2, max_dims=2, max_side=6),
            elements=st.floats(width=min(32, int(name[5:])), allow_nan=False, allow_infinity=False)
            if "float" in name
            else None,
        )
    )
)
def test_any_finite_image_of_any_type_becomes_8_bit_colour(image):
    for config in (IntensityConfig(), SOFT_TISSUE):
        windowed = window_image(image, config)
        assert windowed.dtype == np.uint8
        assert windowed.shape == (*image.shape, 3)
        order = np.argsort(image.ravel(), kind="stable")
        assert (
            np.diff(windowed[..., 0].ravel()[order].astype(int)) >= 0
        ).all()  # brighter never becomes darker


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 31, 37), np.uint8), r"shape \(3, 31, 37\), expected .* move the channel axis"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((0, 4), np.uint8), r"shape \(0, 4\)"),
        (np.zeros((4, 4), bool), "type bool, expected integers or float"),
        (np.zeros((4, 4), complex), "type complex128"),
        (np.array([[0.0, np.nan], [np.inf, 1.0]]), "2 of the image's 4 values are not finite"),
    ],
)
def test_an_image_that_cannot_be_windowed_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        window_image(image, IntensityConfig())


def test_without_a_window_only_8_bits_are_taken():
    bare = IntensityConfig(window="none")
    assert np.array_equal(window_image(IMAGE, bare), IMAGE)
    with pytest.raises(ValueError, match=r'type uint16 where intensity.window = "none" takes uint8'):
        window_image(IMAGE.astype(np.uint16), bare)


def test_what_is_shown_is_8_bits_as_they_are_and_all_else_stretched():
    assert np.array_equal(to_display(IMAGE), IMAGE)
    assert to_display(IMAGE.astype(np.uint16) + 5000).max() == 255


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("normalisation", ["half", "imagenet", "z_score"])
def test_inputs_are_float_channels_first(normalisation, channels):
    values = normalise(IMAGE, normalisation, channels)
    assert values.shape == (channels, 31, 37)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()


@pytest.mark.parametrize("image", [IMAGE, IMAGE[::-1, ::2]])
def test_every_channel_is_scaled_by_its_own_mean_and_deviation(image):
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = {"half": image / 127.5 - 1, "imagenet": (image / 255 - mean) / deviation}
    for normalisation, values in expected.items():
        np.testing.assert_allclose(normalise(image, normalisation, 3), values.transpose(2, 0, 1), atol=1e-5)


def test_normalisations_have_their_stated_range():
    extremes = np.zeros((2, 2, 3), np.uint8)
    extremes[0] = 255
    assert normalise(extremes, "half", 3).min() == -1
    assert normalise(extremes, "half", 3).max() == 1
    for channels in (1, 3):
        assert normalise(IMAGE, "z_score", channels).mean() == pytest.approx(0, abs=1e-4)
        assert normalise(IMAGE, "z_score", channels).std() == pytest.approx(1, abs=1e-3)
