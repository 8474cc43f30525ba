"""Pixel values to the network's input: a window of intensities, then a normalisation."""

from typing import Literal

import numpy as np
import numpy.typing as npt

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

Normalisation = Literal["half", "imagenet", "z_score"]


def stretch(image: npt.NDArray[np.uint8], low: float, high: float) -> npt.NDArray[np.uint8]:
    """The image with its `low` percentile at 0 and its `high` percentile at 255, (H, W, 3) uint8.

    One window serves the three channels, so that colours keep their hue. A constant image comes back unchanged.
    """
    histogram = np.bincount(image.ravel(), minlength=256).cumsum()
    black = np.searchsorted(histogram, low / 100 * histogram[-1], side="right")
    white = np.searchsorted(histogram, high / 100 * histogram[-1], side="left")
    if white <= black:
        return image
    values = (np.arange(256, dtype=np.float32) - black) * (255 / (white - black))
    table: npt.NDArray[np.uint8] = np.clip(np.round(values), 0, 255).astype(np.uint8)
    return np.take(table, image)


def normalise(image: npt.NDArray[np.uint8], normalisation: Normalisation, channels: int) -> npt.NDArray[np.float32]:
    """The network's input (C, H, W) float32 of an RGB image (H, W, 3) uint8; one channel is the mean of the three."""
    values = image.astype(np.float32) / 255
    if normalisation == "imagenet":
        values = (values - IMAGENET_MEAN) / IMAGENET_DEVIATION
    elif normalisation == "half":
        values = values * 2 - 1
    else:
        values = (values - values.mean()) / max(float(values.std()), 1e-3)
    if channels == 1:
        values = values.mean(axis=2, keepdims=True)
    return np.ascontiguousarray(values.transpose(2, 0, 1))
