import cv2
import numpy as np
import pytest
import torch
from tiny_networks import Brightness

from nuclei.config import Config, IntensityConfig, ModelConfig, PredictionConfig, TrainingConfig
from nuclei.inference.predictor import Predictor
from nuclei.inference.tiling import Box, ScaledImage, list_tiles, predict_tiles, resample
from nuclei.models.factory import build_model
from nuclei.synthetic.images import make_image

REACH = 48
"""Pixels beyond the receptive field of a UNet of depth 2."""


def predictor(normalisation="half", window="percentile", flips=8, scales=(1.0,), **model):
    torch.manual_seed(0)
    config = Config(
        name="tiny",
        model=ModelConfig(width=4, depth=2, **model),
        intensity=IntensityConfig(window=window, normalisation=normalisation),
        training=TrainingConfig(precision="32-true"),
        prediction=PredictionConfig(flips=flips, scales=scales),
    )
    network = build_model(config.model, 3)
    torch.nn.init.normal_(network.outc.conv.weight, std=2.0)  # else all probabilities are about the same
    return Predictor(network, config, torch.device("cpu"), None)


def picture(height=157, width=198):
    image = make_image("purple_tissue", 3, height, width)[0]
    image[:40] = image[:40] // 3  # a window or a mean of a tile is not that of the image
    return image


def join(tiles, shape):
    maps = np.zeros((3, *shape), np.uint8)
    for box, part in tiles:
        maps[(slice(None), *box.slices)] = part
    return maps


def differences(networks, image, margin=REACH, side=64):
    """Between tiles of up to `side` pixels and the whole, in 255ths."""
    whole = np.mean([network(image) for network in networks], axis=0)
    return np.abs(join(predict_tiles(networks, image, side, margin), image.shape[:2]) - whole)


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (157, 198), (65, 300)])
def test_tiles_cover_each_pixel_once(shape):
    seen = np.zeros(shape, int)
    for box in list_tiles(shape, 64):
        seen[box.slices] += 1
        assert max(box.bottom - box.top, box.right - box.left) <= 64
    assert (seen == 1).all()


def test_a_box_grows_to_the_grid_and_stays_in_the_image():
    assert Box(10, 20, 30, 40).grow(5, (100, 43), 8) == Box(0, 8, 40, 43)


@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
@pytest.mark.parametrize("packing", [1, 2])
@pytest.mark.parametrize("flips", [1, 2, 4, 8])
def test_tiles_give_the_maps_of_the_whole_image(upsampling, packing, flips):
    assert differences([predictor(upsampling=upsampling, packing=packing, flips=flips)], picture()).max() <= 1


@pytest.mark.parametrize("skip", ["attention", "add"])
@pytest.mark.parametrize(("normalisation", "channels"), [("imagenet", 3), ("z_score", 3), ("z_score", 1)])
def test_tiles_see_the_window_and_the_statistics_of_the_whole_image(skip, normalisation, channels):
    network = predictor(normalisation, flips=1, skip=skip, in_channels=channels)
    assert differences([network], picture()).max() <= 1


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.float32])
def test_tiles_of_any_type_of_pixels_see_one_window(kind):
    assert differences([predictor(flips=1)], picture()[..., 0].astype(kind) * 100).max() <= 1


def test_several_networks_with_windows_of_their_own_are_averaged():
    assert differences([predictor(flips=1), predictor(flips=2, window="none")], picture()).max() <= 1


def test_without_a_margin_seams_appear():
    assert differences([predictor(flips=1)], picture(), margin=0).max() > 5


@pytest.mark.parametrize("scale", [0.5, 0.71, 1.41, 2.0])
@pytest.mark.parametrize("flips", [1, 8])
def test_tiles_of_a_scaled_image_give_its_maps(scale, flips):
    # four tiles: with their margins they are most of the image, and more of them take seconds
    found = differences([predictor(flips=flips, scales=(scale,))], picture(height=240), 2 * REACH, side=128)
    assert found.max() <= (1 if scale > 1 else 4)  # a smaller image is rounded in another way here and there
    assert found.mean() < 0.05


def test_tiles_use_the_flips_of_each_scale():
    prediction = PredictionConfig(flips=1, scales=(1.0, 1.41, 2.0), vary_flips=True)
    network = predictor()
    network.config = network.config.model_copy(update={"prediction": prediction})
    assert differences([network], picture(height=240), 2 * REACH, side=128).max() <= 1


def test_all_tiles_use_the_scales_that_fit_the_size_of_the_nuclei():
    halving, halved, whole = (predictor(flips=1, scales=scales) for scales in ((2.0,), (1.0,), (2.0,)))
    prediction = PredictionConfig(flips=1, scales=(2.0,), halve_scales_from=40)
    halving.config = halving.config.model_copy(update={"prediction": prediction})
    for network in (halving, halved, whole):
        network.model = Brightness()
    image = np.full((157, 198, 3), 20, np.uint8)
    image[30:140, 40:170] = 230
    tiles, expected, other = (
        join(predict_tiles([one], image, 64, 16), (157, 198)) for one in (halving, halved, whole)
    )
    assert np.array_equal(tiles, expected)
    assert not np.array_equal(tiles, other)


def test_rims_of_a_tiled_image_are_those_of_the_whole_image():
    plain, calibrated = (predictor(flips=1, window="none") for _ in range(2))
    prediction = PredictionConfig(flips=1, rim_level=0.3)
    calibrated.config = calibrated.config.model_copy(update={"prediction": prediction})
    plain.model = calibrated.model = Brightness()
    image = np.tile(make_image("small_fluorescence", 3, 160, 200)[0], (2, 2, 1))
    whole = calibrated(image)
    assert not np.array_equal(whole, plain(image))
    tiled = join(predict_tiles([calibrated], image, 200, 96), image.shape[:2]).astype(int)
    assert np.abs(tiled - whole).mean() < 0.1 * np.abs(plain(image).astype(int) - whole).mean()


@pytest.mark.parametrize("shape", [(157, 198), (33, 300)])
@pytest.mark.parametrize(("scale", "allowed"), [(0.5, 1), (0.71, 1), (1.41, 0), (2.0, 0)])
def test_a_part_of_a_scaled_image_is_that_of_opencv(shape, scale, allowed):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    scaled = ScaledImage(image, None, None, scale)
    height, width = scaled.shape
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    whole = cv2.resize(image, (width, height), interpolation=method).astype(int)
    for box in (Box(0, 0, height, width), Box(3, 5, 14, 60), Box(height - 9, width - 40, height, width)):
        assert np.abs(scaled.read(box) - whole[box.slices]).max() <= allowed


@pytest.mark.parametrize(("source", "target", "area"), [(50, 36, True), (50, 36, False), (50, 83, False)])
def test_a_part_of_an_axis_is_resampled_as_opencv_resizes_the_whole(source, target, area):
    line = np.random.default_rng(0).random((source, 1), np.float32)
    whole = cv2.resize(line, (1, target), interpolation=cv2.INTER_AREA if area else cv2.INTER_LINEAR)
    for start, stop in ((0, 9), (7, 20), (target - 5, target)):
        pixels, weights = resample(source, target, start, stop, area)
        assert np.allclose(weights @ line[pixels, 0], whole[start:stop, 0], atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 50), (31, 8)])
def test_images_smaller_than_the_network_takes_are_predicted(height, width):
    network = predictor()
    image = picture()[:height, :width]
    assert network(image).shape == (3, height, width)
    assert join(predict_tiles([network], image), (height, width)).shape == (3, height, width)
