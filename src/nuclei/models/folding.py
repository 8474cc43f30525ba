"""Batch normalisation folded into the convolutions before it, for prediction alone.

In evaluation a batch normalisation is a scale and a shift per channel, which the weights and a bias
of the convolution can hold: one pass over the features less for each of them.

Letters: B batch, C channels, H height, W width.
"""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nuclei.models.blocks import InstanceNorm
from nuclei.models.efficientnet_lite import (
    EfficientNetLite,
    InvertedResidual,
    Lite0Encoder,
    NormalisedActivation,
    SeparableBlock,
)
from nuclei.models.same_padding import find_gaps, pad_same

PAIRS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    EfficientNetLite: (("conv_stem", "bn1"),),
    SeparableBlock: (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    InvertedResidual: (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
}
"""Convolutions and the normalisations after them, by the module that has both."""


class FoldedConv2d(nn.Module):
    """A convolution without bias and the batch normalisation after it, as one convolution."""

    def __init__(self, convolution: Any, normalisation: NormalisedActivation) -> None:
        super().__init__()
        mean: Any = normalisation.running_mean
        variance: Any = normalisation.running_var
        scale = normalisation.weight / torch.sqrt(variance + normalisation.eps)
        bias = normalisation.bias - mean * scale
        self.weight = nn.Parameter((convolution.weight * scale[:, None, None, None]).detach())
        self.bias = nn.Parameter(bias.detach())
        self.active = normalisation.active
        self.groups = int(getattr(convolution, "groups", len(self.weight)))  # ours are depthwise without it
        self.kernel = self.weight.shape[-1]
        stride = convolution.stride
        self.stride = int(stride if isinstance(stride, int) else stride[0])
        self.padded = False
        """Whether what comes is padded already."""

    def forward(self, features_BCHW: Tensor) -> Tensor:
        stride, padding = self.stride, self.kernel // 2
        if stride > 1:  # TensorFlow's padding depends on the image's size
            padding = 0
            if not self.padded:
                features_BCHW = pad_same(features_BCHW, [self.kernel] * 2, [stride] * 2)
        out_BCHW = functional.conv2d(features_BCHW, self.weight, self.bias, stride, padding, groups=self.groups)
        return functional.relu6(out_BCHW, inplace=True) if self.active else out_BCHW


class PaddingExpansion(nn.Module):
    """A folded pointwise convolution whose output is padded for the convolution after it.

    Its input, which has a sixth of the channels, is padded instead, and the frame of the output set
    to zero: padding the output would copy the largest features of the network.
    """

    def __init__(self, pointwise: nn.Module, following: FoldedConv2d) -> None:
        super().__init__()
        self.pointwise = pointwise
        self.reach, self.stride = [following.kernel] * 2, [following.stride] * 2
        following.padded = True

    def forward(self, features_BCHW: Tensor) -> Tensor:
        (top, bottom), (left, right) = find_gaps(features_BCHW, self.reach, self.stride)
        out_BCHW: Tensor = self.pointwise(functional.pad(features_BCHW, (left, right, top, bottom)))
        height, width = out_BCHW.shape[-2:]
        for frame in (np.s_[:top], np.s_[height - bottom :]):
            out_BCHW[..., frame, :] = 0
        for frame in (np.s_[:left], np.s_[width - right :]):
            out_BCHW[..., frame] = 0
        return out_BCHW


def can_fold(network: nn.Module) -> bool:
    """Whether the network has an encoder whose normalisations `fold_normalisation` knows."""
    return any(isinstance(module, Lite0Encoder) for module in network.modules())


def fold_normalisation(network: nn.Module, kind: torch.dtype = torch.float32) -> nn.Module:
    """A copy of a network in evaluation mode with the encoder's batch normalisation folded.

    Its convolutions compute in `kind`, which images must have. Instance normalisation keeps float32
    scales and shifts.
    """
    folded = copy.deepcopy(network).eval()
    for module in list(folded.modules()):
        for convolution, normalisation in PAIRS.get(type(module), ()):
            pair = getattr(module, convolution), getattr(module, normalisation)
            setattr(module, convolution, FoldedConv2d(*pair))
            setattr(module, normalisation, nn.Identity())
    for module in list(folded.modules()):
        depthwise = getattr(module, "conv_dw", None)
        if (
            isinstance(module, InvertedResidual)
            and isinstance(depthwise, FoldedConv2d)
            and depthwise.stride > 1
        ):
            setattr(module, "conv_pw", PaddingExpansion(module.conv_pw, depthwise))  # noqa: B010
    for module in folded.modules():
        if not isinstance(module, InstanceNorm):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(kind)
    return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
