"""Crops made on a device, here the processor, against those of albumentations and OpenCV."""

import cv2
import numpy as np
import pytest
import torch

from nuclei.config import (
    AugmentationConfig,
    Config,
    IntensityConfig,
    LossConfig,
    ModelConfig,
    TargetConfig,
    TrainingConfig,
)
from nuclei.data.counter_random import draw_noise, draw_uniforms, seeds_of
from nuclei.data.dataset import Batches, Crops
from nuclei.data.device_augmentation import RANGES, Draws, draw_windows, place_samples
from nuclei.data.device_crops import DeviceCrops, normalise
from nuclei.data.device_images import DeviceImages
from nuclei.data.device_targets import count_pixels, find_borders, make_targets
from nuclei.data.intensity import normalise as normalise_image
from nuclei.data.targets import core_energy, pixel_weights, touching_border
from nuclei.synthetic.images import make_image

CPU = torch.device("cpu")
TRAINING = TrainingConfig(steps=6, steps_per_epoch=2, batch_size=4, crop=64)
PAIRS = [make_image("purple_tissue", 0, 200, 240), make_image("small_fluorescence", 1, 160, 130)]


def make_config(preset="nuclei", scales=None, **sections):
    augmentation = AugmentationConfig(preset=preset, place="device", scales=scales)
    return Config(name="device", training=TRAINING, augmentation=augmentation, **sections)


def make_crops(images, config, fold=0):
    return Crops(images, images.ids("train"), config, fold)


def make_batches(images, config, positions, fold=0):
    return list(DeviceCrops(make_crops(images, config, fold), positions, CPU))


def crop_window(image, label_map, top, left, window, side):
    """A window of an image by OpenCV, as `augmentation.draw_crop` cuts it."""
    image, label_map = (each[top : top + window, left : left + window] for each in (image, label_map))
    method = cv2.INTER_AREA if window > side else cv2.INTER_LINEAR
    labels = cv2.resize(label_map.astype(np.float32), (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
    return cv2.resize(image, (side, side), interpolation=method), labels.astype(np.int32)


def sample_window(top, left, window, side, preset="none", pairs=PAIRS, number=0):
    images = DeviceImages(*zip(*pairs, strict=True), core="distance", device=CPU)
    windows, tops, lefts = (np.array([value]) for value in (window, top, left))
    rows, columns = place_samples(Draws(np.array([3]), CPU), RANGES[preset], windows, tops, lefts, side)
    return images.sample(np.array([number]), rows, columns, windows / side)


# --- geometry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [32, 40, 50, 64, 80, 90, 100, 128])
def test_at_every_scale_a_crop_is_that_of_opencv_and_its_labels_are_the_same_pixel_by_pixel(window):
    image, label_map = PAIRS[0]
    expected, labels = crop_window(image, label_map, 31, 17, window, 64)
    colours, found, _ = sample_window(31, 17, window, 64)
    assert np.array_equal(found[0].numpy(), labels)
    apart = np.abs(colours[0].permute(1, 2, 0).numpy() - expected)
    assert apart.mean() < (0.6 if window in (32, 40, 50, 64, 128) else 2.5)


@pytest.mark.parametrize("preset", ["nuclei", "laboratories", "medical"])
@pytest.mark.parametrize("scale", [0.5, 0.7, 1.0, 1.41, 2.0])
def test_label_maps_stay_on_their_image_through_scale_flips_rotation_and_elastic_deformation(preset, scale):
    rows, columns = np.mgrid[:220, :260]
    label_map = (np.hypot(rows - 80, columns - 90) < 50) | (np.hypot(rows - 150, columns - 170) < 60)
    image = np.where(label_map, np.uint8(220), np.uint8(20))[..., None].repeat(3, axis=2)
    images = DeviceImages([image], [label_map.astype(np.int32)], "distance", CPU)
    draws = Draws(np.arange(40), CPU)
    windows, tops, lefts = draw_windows(draws, images.sizes[np.zeros(40, int)], 64, (scale, scale))
    places = place_samples(draws, RANGES[preset], windows, tops, lefts, 64)
    colours, labels, _ = images.sample(np.zeros(40, np.int64), *places, windows / 64)
    bright, inside = colours[:, 0].numpy() > 120, labels.numpy() > 0
    # where an image is halved a label is that of one of four pixels
    assert np.mean(bright != inside) < 0.004 / min(1, scale)
    shifted = [np.roll(inside, step, axis) for axis in (1, 2) for step in (-1, 1)]
    assert min(np.mean(bright != each) for each in shifted) > 3 * np.mean(bright != inside)


def test_all_flips_and_transposes_occur_equally_often_and_the_window_keeps_its_pixels():
    draws = Draws(np.arange(800), CPU)
    square = np.arange(16).reshape(4, 4).astype(np.uint8)
    images = DeviceImages([square[..., None].repeat(3, axis=2)], [square.astype(np.int32)], "distance", CPU)
    ranges = RANGES["nuclei"].__class__()
    corners = (np.full(800, 4), np.zeros(800, int), np.zeros(800, int))
    _, labels, _ = images.sample(
        np.zeros(800, np.int64), *place_samples(draws, ranges, *corners, 4), np.ones(800)
    )
    found, counts = np.unique(labels.numpy(), axis=0, return_counts=True)
    turned = [np.rot90(each, turns) for each in (square, square.T) for turns in range(4)]
    assert {each.tobytes() for each in found} == {each.astype(np.int64).tobytes() for each in turned}
    assert counts.min() > 60


def test_an_image_smaller_than_its_window_is_mirrored_around_its_middle():
    label_map = PAIRS[1][1]
    window = 200
    widths = [((window - length) // 2, window - length - (window - length) // 2) for length in label_map.shape]
    expected = np.pad(label_map, widths, mode="symmetric")
    top, left = (-before for before, _ in widths)
    _, labels, _ = sample_window(top, left, window, window, number=1)
    assert np.array_equal(labels[0].numpy(), expected)


def test_windows_lie_in_their_image_and_scales_are_log_uniform_between_their_limits():
    draws = Draws(np.arange(4000), CPU)
    sizes = np.array([[200, 240]]).repeat(4000, 0)
    windows, tops, lefts = draw_windows(draws, sizes, 64, (0.5, 2.0))
    assert windows.min() >= 32
    assert windows.max() <= 128
    assert np.mean(windows > 64) == pytest.approx(0.5, abs=0.03)
    assert tops.min() == lefts.min() == 0
    assert (tops + windows).max() == 200
    assert (lefts + windows).max() == 240


# --- targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["purple_tissue", "small_fluorescence"])
@pytest.mark.parametrize("largest", [1.0, 4.0, 7.0])
def test_borders_and_weights_are_those_of_the_host_pixel_by_pixel(modality, largest):
    label_maps = np.stack([make_image(modality, seed, 96, 96)[1] for seed in range(4)])
    labels = torch.from_numpy(label_maps).long()
    areas = count_pixels(labels, int(labels.max()) + 1)
    found = find_borders(labels, areas, 0.15, largest).numpy()
    expected = np.stack([touching_border(each, 0.15, largest) for each in label_maps])
    assert np.array_equal(found, expected)
    assert expected.any()
    config = make_config(
        loss=LossConfig(border_weight=4, small_weight=0.5), target=TargetConfig(border_max=largest)
    )
    _, weights = make_targets(labels, labels.float(), len(areas[0]), config)
    for each, border, made in zip(label_maps, expected, weights.numpy(), strict=True):
        np.testing.assert_allclose(made, pixel_weights(each, border, 4, 0.5), rtol=1e-5)


@pytest.mark.parametrize(("window", "side"), [(80, 128), (64, 64), (128, 64)])
def test_the_core_is_that_of_the_crop_but_for_nuclei_that_its_edge_cuts(window, side):
    image, label_map = PAIRS[1]
    _, labels = crop_window(image, label_map, 15, 1, window, side)
    _, _, core = sample_window(15, 1, window, side, number=1)
    cut = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    whole = (labels > 0) & ~np.isin(labels, cut)
    apart = (core[0].numpy() - core_energy(labels))[whole]
    assert whole.sum() > 100
    assert abs(apart.mean()) < 0.04
    assert np.abs(apart).mean() < (0.002 if window == side else 0.08)
    assert (core[0].numpy() > 0).tolist() == (labels > 0).tolist()


def test_three_classes_are_exclusive_and_the_centre_core_is_highest_in_the_middle(images):
    config = make_config(target=TargetConfig(scheme="three_class"))
    _, target, _ = make_batches(images, config, [[0, 1, 2, 3]])[0]
    assert torch.equal(target.sum(1), torch.ones(4, 64, 64))
    _, target, _ = make_batches(images, make_config(target=TargetConfig(core="centre")), [[0, 1, 2, 3]])[0]
    inside = target[:, 0] > 0
    assert (target[:, 2][inside] > 0).all()
    assert not target[:, 2][~inside].any()


# --- one crop, whatever the batch -----------------------------------------------------------------


@pytest.mark.parametrize("preset", RANGES)
def test_a_crop_depends_on_seed_fold_epoch_and_position_alone(images, preset):
    config = make_config(preset)
    whole = make_batches(images, config, Batches(0, 6, 4))
    parts = [make_batches(images, config, Batches(2, 6, 4, rank, 2)) for rank in (0, 1)]
    for batch, first, second in zip(whole[2:], *parts, strict=True):
        for rank, part in enumerate((first, second)):
            assert part[-1] == batch[-1][rank::2]
            torch.testing.assert_close(part[0], batch[0][rank::2], atol=1e-4, rtol=0)
            torch.testing.assert_close(part[1], batch[1][rank::2], atol=1e-4, rtol=0)


def test_seeds_folds_and_epochs_differ(images):
    one = make_batches(images, make_config("none"), [[0]])[0][0]
    epoch = make_batches(images, make_config("none"), [[8]])[0][0]
    fold = make_batches(images, make_config("none"), [[0]], fold=1)[0][0]
    assert not torch.equal(one, epoch)
    assert not torch.equal(one, fold)


def test_the_numbers_of_a_counter_are_uniform_and_do_not_depend_on_each_other():
    draws = draw_uniforms(seeds_of(7, 1, np.arange(40), np.arange(40)[:, None]).ravel(), 12)
    assert draws.mean(axis=0) == pytest.approx(np.full(12, 0.5), abs=0.03)
    assert draws.std(axis=0) == pytest.approx(np.full(12, 12**-0.5), abs=0.02)
    assert np.abs(np.corrcoef(draws.T) - np.eye(12)).max() < 0.1
    noise = draw_noise(torch.arange(4), (64, 64), stream=1)
    assert noise.mean((1, 2)).abs().max() < 0.06
    assert (noise.std((1, 2)) - 1).abs().max() < 0.05
    flat = noise.flatten(1)
    assert np.abs(np.corrcoef(flat) - np.eye(4)).max() < 0.06
    assert abs(np.corrcoef(flat[0, :-1], flat[0, 1:])[0, 1]) < 0.06


# --- against albumentations -----------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["nuclei", "laboratories"])
def test_means_and_deviations_of_inputs_and_targets_are_those_of_the_host(images, preset):
    training = TRAINING.model_copy(update={"steps": 12, "steps_per_epoch": 12, "batch_size": 16})
    config = make_config(preset).model_copy(update={"training": training})
    crops = make_crops(images, config)
    on_host = [crops[position] for position in range(192)]
    on_device = list(DeviceCrops(crops, Batches(0, 12, 16), CPU))
    for part, limits in ((0, (0.08, 0.06)), (1, (0.03, 0.03))):
        host = torch.stack([example[part] for example in on_host]).transpose(0, 1).flatten(1)
        device = torch.cat([batch[part] for batch in on_device]).transpose(0, 1).flatten(1)
        assert (host.mean(1) - device.mean(1)).abs().max() < limits[0]
        assert (host.std(1) - device.std(1)).abs().max() < limits[1]


@pytest.mark.parametrize("normalisation", ["half", "imagenet", "z_score"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_input_is_normalised_as_on_the_host(normalisation, channels):
    image = PAIRS[0][0]
    expected = normalise_image(image, normalisation, channels)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    found = normalise(batch, IntensityConfig(normalisation=normalisation), channels)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-5)


def test_copy_paste_on_the_device_is_refused():
    with pytest.raises(ValueError, match=r"copy_paste would have no effect"):
        AugmentationConfig(place="device", copy_paste=0.5)


def test_a_grey_input_and_weights_have_the_shapes_that_training_expects(images):
    config = make_config(model=ModelConfig(in_channels=1), loss=LossConfig(border_weight=4))
    pixels, target, weights, ids = make_batches(images, config, [[0, 1, 2]])[0]
    assert pixels.shape == weights.shape == (3, 1, 64, 64)
    assert target.shape == (3, 3, 64, 64)
    assert len(ids) == 3
