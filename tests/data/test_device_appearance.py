"""Colour, contrast and sharpness on a device against OpenCV and `data.appearance`."""

import cv2
import numpy as np
import pytest
import torch

from nuclei.data import device_appearance as appearance
from nuclei.data.appearance import STAINS
from nuclei.data.device_augmentation import add_haze, change_stains
from nuclei.synthetic.images import make_image

IMAGES = [make_image(modality, 0, 64, 64)[0] for modality in ("purple_tissue", "small_fluorescence")]
BATCH = torch.from_numpy(np.stack(IMAGES)).permute(0, 3, 1, 2).float()


def values(*numbers):
    return torch.tensor(numbers, dtype=torch.float32)


def assert_close(found, expected, mean, most):
    apart = np.abs(found.permute(0, 2, 3, 1).numpy() - np.stack(expected))
    assert apart.mean() < mean
    assert apart.max() < most


def test_grey_is_that_of_opencv():
    expected = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2) for image in IMAGES]
    assert_close(appearance.to_grey(BATCH), expected, 0.5, 1)


@pytest.mark.parametrize(("hue", "saturation", "value"), [(0, 0, 0), (20, 0, 0), (-15, 30, -10), (7, -40, 15)])
def test_hue_saturation_and_value_shift_as_in_opencv(hue, saturation, value):
    shifts = (values(2 * hue, 2 * hue), values(saturation, saturation), values(value, value))
    expected = []
    for image in IMAGES:
        hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + 2 * hue) % 360
        hsv[..., 1] = np.clip(hsv[..., 1] + saturation / 255, 0, 1)
        hsv[..., 2] = np.clip(hsv[..., 2] + value / 255, 0, 1)
        expected.append(255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    assert_close(appearance.shift_hue(BATCH, *shifts), expected, 0.05, 1)


@pytest.mark.parametrize("clip", [1.0, 2.0, 3.0])
def test_clahe_is_that_of_opencv_on_the_lightness(clip):
    images = [make_image(modality, 0, 256, 256)[0] for modality in ("purple_tissue", "small_fluorescence")]
    expected = []
    for image in images:
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        lab[..., 0] = cv2.createCLAHE(clip, (8, 8)).apply(lab[..., 0])
        expected.append(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))
    # OpenCV rounds lightness and colours to 8 bits
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    assert_close(appearance.equalise(batch, values(clip, clip)), expected, 2, 25)


def test_lightness_and_the_rest_make_the_image_again():
    again = appearance.join_lightness(*appearance.split_lightness(BATCH))
    assert (again - BATCH).abs().max() < 0.5


@pytest.mark.parametrize(("sigma", "radius"), [(0.5, 1), (1.5, 2), (2.5, 2)])
def test_the_blur_is_that_of_opencv_with_the_same_kernel_for_each_crop_of_a_batch(sigma, radius):
    sigmas, radii = values(sigma, 1.0), torch.tensor([radius, 1])
    found = appearance.blur(BATCH, sigmas, radii, 2)
    sides = (2 * radius + 1, 3)
    expected = [
        cv2.GaussianBlur(image.astype(np.float32), (side, side), one)
        for image, side, one in zip(IMAGES, sides, (sigma, 1.0), strict=True)
    ]
    assert_close(found, expected, 0.01, 0.1)


def test_sharpening_is_the_filter_of_albumentations():
    alpha, lightness = 0.3, 0.8
    effect = np.array([[-1, -1, -1], [-1, 8 + lightness, -1], [-1, -1, -1]], np.float32)
    kernel = (1 - alpha) * np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32) + alpha * effect
    expected = [np.clip(cv2.filter2D(image.astype(np.float32), -1, kernel), 0, 255) for image in IMAGES]
    assert_close(
        appearance.sharpen(BATCH, values(alpha, alpha), values(lightness, lightness)), expected, 0.01, 0.1
    )


def test_contrast_and_gamma_keep_black_black_and_change_each_crop_by_its_own_parameter():
    found = appearance.change_contrast(BATCH, values(1.5, 0.5), values(10, -10))
    expected = [np.clip(IMAGES[0] * 1.5 + 10, 0, 255), np.clip(IMAGES[1] * 0.5 - 10, 0, 255)]
    assert_close(found, expected, 0.01, 0.1)
    found = appearance.change_gamma(BATCH, values(0.6, 1.7))
    assert_close(found, [255 * (IMAGES[0] / 255) ** 0.6, 255 * (IMAGES[1] / 255) ** 1.7], 0.05, 0.3)


def test_stains_that_are_not_changed_make_the_image_again_and_more_stain_is_darker():
    one, none = values(1, 1), values(0, 0)
    assert (change_stains(BATCH, one, one, one, none, none, none) - BATCH).abs().max() < 0.1
    more = change_stains(BATCH, 1.5 * one, one, one, none, none, none)
    density = -np.log((IMAGES[0].astype(np.float64) + 1) / 256) @ np.linalg.inv(STAINS)
    density[..., 0] *= 1.5
    assert_close(more[:1], [np.clip(256 * np.exp(-density @ STAINS) - 1, 0, 255)], 0.1, 1)


def test_haze_brightens_and_stays_within_the_range():
    hazy = add_haze(BATCH, values(3, 12), values(0.2, 0.7), 1)
    assert hazy.max() <= 255.01
    assert (hazy[1].mean() > BATCH[1].mean()).item()


def test_lower_resolution_keeps_the_mean_and_removes_detail():
    reduced = appearance.reduce_resolution(BATCH, 0.5)
    assert (reduced.mean((1, 2, 3)) - BATCH.mean((1, 2, 3))).abs().max() < 1
    assert (reduced.std((2, 3)) < BATCH.std((2, 3))).all()
