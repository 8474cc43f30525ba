"""Fast prediction: one scale that fits the nuclei, no flips."""

import cv2
import numpy as np
import pytest
import torch

from nuclei.config import Config, ModelConfig, PredictionConfig
from nuclei.inference.fast import DIAMETER, FastPredictor, choose_scale
from nuclei.inference.predictor import Predictor

SCALES = [0.71, 1.0, 1.41]


class Threshold(torch.nn.Module):
    """Bright is nucleus and core; remembers the sizes of the images that it saw."""

    multiple = smallest = 1

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def forward(self, pixels_BCHW):
        self.seen.append(tuple(pixels_BCHW.shape[-2:]))
        logits_B1HW = pixels_BCHW[:, :1] * 20
        return torch.cat([logits_B1HW, -20 * torch.ones_like(logits_B1HW), logits_B1HW], 1)


def predict(diameter: int, **prediction):
    """The sizes of images that the network saw, and the maps, for discs of that diameter."""
    image = np.zeros((256, 256), np.uint8)
    for row in range(64, 256, 128):
        for column in range(64, 256, 128):
            cv2.circle(image, (column, row), diameter // 2, 255, -1)
    settings = {"scales": (0.71, 1.0, 1.41, 2.0), "flips": 8, "halve_scales_from": 60.0} | prediction
    config = Config(name="x", model=ModelConfig(), prediction=PredictionConfig(**settings))
    network = Threshold()
    maps = FastPredictor(Predictor(network, config, torch.device("cpu"), None))(image)
    return network.seen, maps, image


@pytest.mark.parametrize(
    ("diameter", "expected"), [(12, 1.41), (DIAMETER, 1.0), (68, 0.71), (96, 0.5), (200, 0.25), (0, 1.41)]
)
def test_the_scale_brings_nuclei_to_the_size_that_is_segmented_best(diameter, expected):
    assert choose_scale(SCALES, diameter, halve=True) == pytest.approx(expected, rel=0.02)


def test_without_halving_the_scale_is_one_of_the_configs():
    assert choose_scale(SCALES, 170, halve=False) == 0.71


@pytest.mark.parametrize(("diameter", "expected"), [(20, 1.41), (48, 1.0), (100, 0.5)])
def test_an_image_is_seen_once_to_measure_its_nuclei_and_once_at_the_scale_that_fits_them(diameter, expected):
    seen, maps, image = predict(diameter)
    assert seen == [(round(256 * scale),) * 2 for scale in (0.71, expected)]
    assert ((maps[0] > 127) == (image > 127)).mean() > 0.98


def test_the_first_pass_is_not_repeated_where_its_scale_fits():
    assert len(predict(68)[0]) == 1


def test_a_network_of_one_scale_sees_the_image_once():
    assert predict(40, scales=(1.0,), halve_scales_from=None)[0] == [(256, 256)]
