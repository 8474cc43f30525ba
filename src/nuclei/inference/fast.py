"""Fast prediction for people's own images: one network, one scale, no flips.

A first pass at the config's smallest scale measures the nuclei. The scale is the one of the config's
at which they come closest to the size that this kind of network segments best. Where the encoder's batch
normalisation can be folded into its convolutions it is.
"""

import math
from dataclasses import replace

import numpy as np
import torch

from nuclei.arrays import UInt8Array
from nuclei.inference.predictor import Predictor
from nuclei.inference.tta import Flip, list_flips
from nuclei.inference.weights import Weights
from nuclei.models.folding import can_fold, fold_normalisation
from nuclei.postprocessing.label_ops import mean_diameter
from nuclei.postprocessing.parameters import Parameters
from nuclei.postprocessing.watershed import segment_maps

DIAMETER = 48.0
"""Pixels across at which nuclei are segmented best at one scale, on sources that training never saw."""
LARGEST_SCALE = 1.5
"""Larger scales cost more than the time of a megapixel allows, and gain little."""


class FastPredictor(Predictor):
    """`Predictor` at one scale, chosen for each image, without flips."""

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
        scales = [scale for scale in prediction.scales if scale <= LARGEST_SCALE] or [min(prediction.scales)]
        if len(scales) == 1 and prediction.halve_scales_from is None:
            return (scales[0],)
        low = min(scales)  # at lower resolutions the nuclei of tissue run together and seem large
        maps = self._probabilities(image, low, 0)
        if predicted is not None:
            predicted[low] = maps
        diameter = mean_diameter(segment_maps(np.round(maps * 255).astype(np.uint8), Parameters()))
        return (choose_scale(scales, diameter, prediction.halve_scales_from is not None),)

    def choose_flips(self, scale: float, index: int) -> list[Flip]:
        """The image itself."""
        return list_flips(1)

    def _forward_batch(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return super()._forward_batch(pixels_BCHW.to(self.kind))


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
