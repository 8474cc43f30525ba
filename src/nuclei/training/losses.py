"""Segmentation losses: a weighted sum of pixel-wise and overlap terms.

Letters: B batch, C channels, H height, W width; 1 one channel.

Pixel-wise terms (binary or softmax cross-entropy, focal) are well calibrated and smooth, but a border of a few pixels
hardly counts among the background. Overlap terms (Dice, Tversky, Lovasz) measure each channel
against its own size, so that the rare border counts as much as the rest, but they calibrate the
probabilities badly.

All is computed in float32, also under autocast: a bfloat16 sum over a million pixels loses small
terms.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nuclei.config import LossConfig, TargetConfig
from nuclei.errors import UserError
from nuclei.models.custom import build_custom_loss

SMOOTH_PIXELS = 1.0
"""Added to the denominator of overlap terms."""


def build_loss(loss: LossConfig, target: TargetConfig) -> "SegmentationLoss":
    """The loss of the config, called as `loss(logits, target, weight)`; see `SegmentationLoss`."""
    return SegmentationLoss(loss, target)


class SegmentationLoss(nn.Module):
    """Loss of logits and target, a scalar: the sum of the terms, weighted by `LossConfig`.

    Logits (B, C, H, W), or a list of them from fine to coarse (deep supervision): each scale is
    compared with the target averaged down to its size, and the scales are averaged with weights
    proportional to 1, 1/2, 1/4 ...

    target_BCHW is float32. energy: foreground and border 0 or 1, core in 0..1. three_class: one-hot
    background, body, border. weight_B1HW weights the pixels of the pixel-wise terms; absent means
    1.
    """

    def __init__(self, config: LossConfig, target: TargetConfig) -> None:
        super().__init__()
        self.config = config
        self.exclusive = target.scheme == "three_class"
        self.lovasz = _library_lovasz(self.exclusive) if config.lovasz else None
        self.custom = build_custom_loss(config.custom) if config.custom else None

    def forward(
        self, logits: Tensor | list[Tensor], target_BCHW: Tensor, weight_B1HW: Tensor | None = None
    ) -> Tensor:
        scales = logits if isinstance(logits, list) else [logits]
        scale_weights = [0.5**scale for scale in range(len(scales))]
        total = target_BCHW.new_zeros(())
        for scale_weight, scale_BCHW in zip(scale_weights, scales, strict=True):
            size = scale_BCHW.shape[-2:]
            parts = self.terms(scale_BCHW, _shrink(target_BCHW, size), _shrink(weight_B1HW, size))
            total = total + scale_weight / sum(scale_weights) * sum(parts.values())
        return total

    def terms(self, logits_BCHW: Tensor, target_BCHW: Tensor, weight_B1HW: Tensor | None) -> dict[str, Tensor]:
        """The terms at one scale by name, each multiplied by its weight."""
        _check(logits_BCHW, target_BCHW)
        with torch.autocast(logits_BCHW.device.type, enabled=False):
            logits_BCHW, target_BCHW = logits_BCHW.float(), target_BCHW.float()
            parts = {
                **self._by_pixel(logits_BCHW, target_BCHW, weight_B1HW),
                **self._by_overlap(logits_BCHW, target_BCHW),
            }
            if self.custom is not None:
                parts["custom"] = self.config.custom_weight * self.custom(logits_BCHW, target_BCHW)
            return parts

    def _by_pixel(
        self, logits_BCHW: Tensor, target_BCHW: Tensor, weight_B1HW: Tensor | None
    ) -> dict[str, Tensor]:
        config, parts = self.config, {}
        if config.cross_entropy or config.focal:
            entropy = self._cross_entropy(logits_BCHW, target_BCHW)
            if config.cross_entropy:
                parts["cross_entropy"] = config.cross_entropy * _weighted_mean(entropy, weight_B1HW)
            if config.focal:
                parts["focal"] = config.focal * _weighted_mean(_focal(entropy, config.focal_gamma), weight_B1HW)
        return parts

    def _by_overlap(self, logits_BCHW: Tensor, target_BCHW: Tensor) -> dict[str, Tensor]:
        config, parts = self.config, {}
        if config.dice or config.tversky:
            probabilities = logits_BCHW.softmax(1) if self.exclusive else logits_BCHW.sigmoid()
            if config.dice:
                parts["dice"] = config.dice * overlap_loss(probabilities, target_BCHW, 0.5)
            if config.tversky:
                parts["tversky"] = config.tversky * overlap_loss(
                    probabilities, target_BCHW, config.tversky_beta
                )
        if self.lovasz is not None:
            parts["lovasz"] = config.lovasz * self.lovasz(logits_BCHW, target_BCHW)
        return parts

    def _cross_entropy(self, logits_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
        if self.exclusive:
            return -(target_BCHW * logits_BCHW.log_softmax(1)).sum(1, keepdim=True)
        return functional.binary_cross_entropy_with_logits(logits_BCHW, target_BCHW, reduction="none")


def overlap_loss(probabilities_BCHW: Tensor, target_BCHW: Tensor, beta: float) -> Tensor:
    """1 - Tversky index, averaged over channels: 0 for perfect agreement, near 1 for no overlap.

    beta weights false negatives and 1 - beta false positives; 0.5 makes it the Dice loss. The
    overlap of a pixel is min(probability, target): for 0 and 1 their product, and for soft targets
    the form whose loss is least where both are equal.

    Sums run over the whole batch of all processes, so that a crop without border has no loss of its
    own there. Only the denominator is smoothed, by one pixel: a channel that is empty in the whole
    batch costs 0 where nothing is predicted, and nearly 1 as soon as some pixels are.

    Source: Salehi et al. 2017 (Tversky loss); Wang et al. 2023, Dice Semimetric Losses (soft
    targets).
    """
    over = (0, 2, 3)
    missed = functional.relu(target_BCHW - probabilities_BCHW).sum(over)
    extra = functional.relu(probabilities_BCHW - target_BCHW).sum(over)
    hit = torch.minimum(probabilities_BCHW, target_BCHW).sum(over)
    missed, extra, hit = sum_over_processes(torch.stack([missed, extra, hit])).unbind()
    wrong = beta * missed + (1 - beta) * extra
    return (wrong / (hit + wrong + SMOOTH_PIXELS)).mean()


def _focal(entropy: Tensor, gamma: float) -> Tensor:
    """Focal loss: cross-entropy, less weight on easy pixels. Source: Lin et al. 2017."""
    # the lower limit keeps the gradient of a power under 1 finite where the cross-entropy is 0
    return (-torch.expm1(-entropy)).clamp_min(1e-6) ** gamma * entropy


def _weighted_mean(values_BCHW: Tensor, weight_B1HW: Tensor | None) -> Tensor:
    if weight_B1HW is None:
        return values_BCHW.mean()
    sums = torch.stack(
        [
            (values_BCHW * weight_B1HW.float()).sum(),
            weight_B1HW.float().sum() * values_BCHW.shape[1],
        ]
    )
    weighted, weights = sum_over_processes(sums).unbind()
    return weighted / weights.clamp_min(1e-6)


def sum_over_processes(values: Tensor) -> Tensor:
    """Sums over all processes of a distributed run, differentiable; identity in a single process.

    A ratio of sums over the batch is not the mean of the ratios of its parts: without this, a batch
    split over processes would have another loss than the same batch in one process.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    summed: Tensor = _SumOverProcesses.apply(values)
    return summed


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce that sums gradients over processes too: each loss depends on all values."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        summed = values.clone()
        torch.distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _SumOverProcesses.forward(ctx, gradient)


def _shrink(tensor: Any, size: torch.Size) -> Any:
    """Average pooling to a coarser size; one-hot stays a distribution, thin borders remain."""
    if tensor is None or tensor.shape[-2:] == size:
        return tensor
    return functional.adaptive_avg_pool2d(tensor.float(), (size[0], size[1]))


def _check(logits_BCHW: Tensor, target_BCHW: Tensor) -> None:
    if logits_BCHW.shape != target_BCHW.shape:
        raise UserError(
            f"logits {tuple(logits_BCHW.shape)} and target {tuple(target_BCHW.shape)} differ in "
            "shape; the network's out_channels must be the channels of the target scheme"
        )


def _library_lovasz(exclusive: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """Lovasz-softmax over classes, or Lovasz hinge on foreground and border (the core is soft).

    Source: Berman et al. 2018, The Lovasz-Softmax Loss.
    """
    importlib.import_module("nuclei.models.smp").import_library()
    lovasz = importlib.import_module("segmentation_models_pytorch.losses").LovaszLoss
    if exclusive:
        softmax = lovasz("multiclass")
        return lambda logits_BCHW, target_BCHW: softmax(logits_BCHW, target_BCHW.argmax(1))
    hinge = lovasz("binary")
    return lambda logits_BCHW, target_BCHW: (
        sum(hinge(logits_BCHW[:, channel], (target_BCHW[:, channel] > 0.5).float()) for channel in (0, 1)) / 2
    )
