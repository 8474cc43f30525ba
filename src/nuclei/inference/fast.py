"""Fast prediction for people's own images: one network, one scale, no flips.

A first pass at the config's scale nearest to 1 measures the nuclei in the middle of the image. The
scale is the one at which they come closest to the size that this kind of network segments best.
Where the encoder's batch normalisation can be folded into its convolutions it is.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from nuclei.arrays import UInt8Array
from nuclei.inference.predictor import Predictor, measure_diameter, nearest_to_one
from nuclei.inference.tta import Flip, list_flips
from nuclei.inference.weights import Weights
from nuclei.models.folding import can_fold, fold_normalisation

DIAMETER = 36.0
"""Pixels across at which nuclei are segmented best at one scale, on sources that training never saw."""
LARGEST_SCALE = 1.1875
"""Larger scales cost more time than they gain in score. At this one 1024 pixels become 38 * 32."""
MEASURED_SIDE = 384
"""Longest side, in pixels, of the part of an image in which nuclei are measured."""


class FastPredictor(Predictor):
    """`Predictor` at one scale, chosen for each image, without flips."""

    tile_margin = 128
    """Half of that of mode best: on a mosaic of the competition's images the score is no lower."""

    def __init__(self, predictor: Predictor) -> None:
        network, autocast = predictor.model, predictor.autocast
        self.kind = torch.float32
        if can_fold(network):
            if predictor.device.type == "cpu" and autocast is not None:
                self.kind, autocast = autocast, None
            network = fold_normalisation(network, self.kind)
        super().__init__(network, predictor.config, predictor.device, autocast)

    def choose_scales(
        self, image: UInt8Array, predicted: dict[float, np.ndarray] | None = None
    ) -> tuple[float, ...]:
        """The one scale for a windowed image (H, W, 3).

        The maps of the first pass, (3, H, W) float32, are added to `predicted` by their scale.
        """
        prediction = self.config.prediction
        scales = list_candidates(prediction.scales)
        reduced = prediction.halve_scales_from is not None or prediction.fit_diameter is not None
        if len(scales) == 1 and not reduced:
            return (scales[0],)
        measured = nearest_to_one(scales)
        part = crop_middle(image, MEASURED_SIDE)
        diameter = self._measure(part, measured, predicted if part.shape == image.shape else None)
        if not diameter and part.shape != image.shape:
            diameter = self._measure(image, measured, predicted)
        return (choose_scale(scales, diameter, reduced),)

    def _measure(self, image: UInt8Array, scale: float, predicted: dict[float, np.ndarray] | None) -> float:
        """Diameter of the nuclei in pixels, 0 without nuclei."""
        maps = self._probabilities(image, scale, 0)
        if predicted is not None:
            predicted[scale] = maps
        return measure_diameter(maps)

    def choose_flips(self, scale: float, index: int) -> list[Flip]:
        """The image itself."""
        return list_flips(1)

    def _forward_batch(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return super()._forward_batch(pixels_BCHW.to(self.kind))


def list_candidates(scales: Sequence[float]) -> list[float]:
    """The scales of a config up to `LARGEST_SCALE`, and that one in place of larger ones."""
    largest = max(LARGEST_SCALE, min(scales))
    return sorted({min(scale, largest) for scale in scales})


def crop_middle(image: UInt8Array, side: int) -> UInt8Array:
    """The middle of an image (H, W, 3), at most `side` pixels high and wide."""
    top, left = (max(0, (size - side) // 2) for size in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def choose_scale(scales: list[float], diameter: float, halve: bool) -> float:
    """The scale, as a ratio the nearest, at which nuclei of `diameter` pixels have `DIAMETER`.

    With `halve` the halves of the scales, their quarters and so on are candidates too. Without
    nuclei it is the largest: they may be too small for the first pass.
    """
    if not diameter:
        return max(scales)
    wanted = DIAMETER / diameter
    candidates = list(scales)
    while halve and min(candidates) > wanted:
        candidates += [scale / 2 for scale in candidates]
    return min(candidates, key=lambda scale: abs(math.log(scale / wanted)))


def make_fast(weights: Weights) -> Weights:
    """The first network of the weights alone, for fast prediction."""
    fast = FastPredictor(weights.predictors[0])
    return replace(weights, cards=weights.cards[:1], predictors=[fast], weights=[1.0])
