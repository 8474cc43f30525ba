"""Fast prediction: one scale that fits the nuclei, no flips."""

import cv2
import numpy as np
import pytest
import torch

from nuclei.config import Config, ModelConfig, PredictionConfig
from nuclei.inference.fast import (
    DIAMETER,
    LARGEST_SCALE,
    MEASURED_SIDE,
    FastPredictor,
    choose_scale,
    list_candidates,
)
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


def predict(diameter: int, side: int = 256, **prediction):
    """The sizes of images that the network saw, and the maps, for discs of that diameter."""
    image = np.zeros((side, side), np.uint8)
    for row in range(64, side, 128):
        for column in range(64, side, 128):
            cv2.circle(image, (column, row), diameter // 2, 255, -1)
    settings = {"scales": (0.71, 1.0, 1.41, 2.0), "flips": 8, "halve_scales_from": 60.0} | prediction
    config = Config(name="x", model=ModelConfig(), prediction=PredictionConfig(**settings))
    network = Threshold()
    maps = FastPredictor(Predictor(network, config, torch.device("cpu"), None))(image)
    return network.seen, maps, image


@pytest.mark.parametrize(
    ("diameter", "expected"), [(12, 1.41), (DIAMETER, 1.0), (51, 0.71), (72, 0.5), (144, 0.25), (0, 1.41)]
)
def test_the_scale_brings_nuclei_to_the_size_that_is_segmented_best(diameter, expected):
    assert choose_scale(SCALES, diameter, halve=True) == pytest.approx(expected, rel=0.02)


def test_without_halving_the_scale_is_one_of_the_configs():
    assert choose_scale(SCALES, 170, halve=False) == 0.71


@pytest.mark.parametrize(
    ("diameter", "expected"), [(20, [1.0, LARGEST_SCALE]), (50, [1.0, 0.71]), (100, [1.0, 0.355])]
)
def test_an_image_is_seen_once_to_measure_its_nuclei_and_once_at_the_scale_that_fits_them(diameter, expected):
    seen, maps, image = predict(diameter)
    assert seen == [(round(256 * scale),) * 2 for scale in expected]
    assert ((maps[0] > 127) == (image > 127)).mean() > 0.98


def test_the_first_pass_is_not_repeated_where_its_scale_fits():
    assert len(predict(36)[0]) == 1


def test_nuclei_are_measured_in_the_middle_of_a_large_image():
    side = 3 * MEASURED_SIDE  # so that the middle cuts no disc
    assert predict(36, side)[0] == [(MEASURED_SIDE, MEASURED_SIDE), (side, side)]


def test_nuclei_are_measured_in_the_whole_image_where_its_middle_has_none():
    side = 2 * MEASURED_SIDE
    image = np.zeros((side, side), np.uint8)
    cv2.circle(image, (60, 60), 18, 255, -1)
    prediction = PredictionConfig(scales=(0.71, 1.0), halve_scales_from=60.0)
    config = Config(name="x", model=ModelConfig(), prediction=prediction)
    predictor = FastPredictor(Predictor(Threshold(), config, torch.device("cpu"), None))
    assert predictor(image)[0, 60, 60] > 127
    assert [size[0] for size in predictor.model.seen] == [MEASURED_SIDE, side]


def test_scales_above_the_largest_are_replaced_by_it():
    assert list_candidates((0.71, 1.0, 1.41, 2.0)) == [0.71, 1.0, LARGEST_SCALE]
    assert list_candidates((2.0,)) == [2.0]


def test_a_network_of_one_scale_sees_the_image_once():
    assert predict(40, scales=(1.0,), halve_scales_from=None)[0] == [(256, 256)]
