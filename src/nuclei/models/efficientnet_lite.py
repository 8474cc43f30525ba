"""EfficientNet-Lite0, the shipped networks' encoder, without a library that imports in seconds.

Layers, names of tensors, values and random initialisation are those of timm's
`tf_efficientnet_lite0` as segmentation_models_pytorch wraps it, so checkpoints of either load into
the other.

Letters: B batch, C channels, H height, W width.

Source: Tan and Le 2019 (EfficientNet); github.com/tensorflow/tpu,
    models/official/efficientnet/lite.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nuclei.models.same_padding import SameConv2d

LITE0 = "tu-tf_efficientnet_lite0"
"""Name of this encoder in configs."""
EXPANSION = 6
"""Channels inside an inverted residual block, as a multiple of its input."""


class Stage(NamedTuple):
    """Blocks of one width; the first of them has the stride."""

    blocks: int
    kernel: int
    stride: int
    channels: int


STEM = 32
STAGES = (
    Stage(1, 3, 1, 16),
    Stage(2, 3, 2, 24),
    Stage(2, 5, 2, 40),
    Stage(3, 3, 2, 80),
    Stage(3, 5, 1, 112),
    Stage(4, 5, 2, 192),
    Stage(1, 3, 1, 320),
)
FEATURES = (0, 1, 2, 4, 6)
"""The last stage of each resolution, whose output the decoder gets."""


class NormalisedActivation(nn.BatchNorm2d):
    """Batch normalisation with TensorFlow's epsilon, then ReLU6 where `active`."""

    def __init__(self, channels: int, active: bool = True) -> None:
        super().__init__(channels, eps=1e-3)
        self.active = active

    def forward(self, features_BCHW: Tensor) -> Tensor:
        normalised_BCHW = super().forward(features_BCHW)
        return functional.relu6(normalised_BCHW, inplace=True) if self.active else normalised_BCHW


class SeparableBlock(nn.Module):
    """Depthwise, then pointwise convolution: the block of the first stage."""

    def __init__(self, in_channels: int, stage: Stage) -> None:
        super().__init__()
        self.conv_dw = _convolution(in_channels, in_channels, stage.kernel, stage.stride, groups=in_channels)
        self.bn1 = NormalisedActivation(in_channels)
        self.conv_pw = _convolution(in_channels, stage.channels, 1)
        self.bn2 = NormalisedActivation(stage.channels, active=False)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        out_BCHW: Tensor = self.bn2(self.conv_pw(self.bn1(self.conv_dw(features_BCHW))))
        return out_BCHW


class InvertedResidual(nn.Module):
    """Pointwise expansion, depthwise convolution, pointwise projection; residual if shapes fit."""

    def __init__(self, in_channels: int, stage: Stage) -> None:
        super().__init__()
        inner = in_channels * EXPANSION
        self.conv_pw = _convolution(in_channels, inner, 1)
        self.bn1 = NormalisedActivation(inner)
        self.conv_dw = _convolution(inner, inner, stage.kernel, stage.stride, groups=inner)
        self.bn2 = NormalisedActivation(inner)
        self.conv_pwl = _convolution(inner, stage.channels, 1)
        self.bn3 = NormalisedActivation(stage.channels, active=False)
        self.residual = stage.stride == 1 and in_channels == stage.channels

    def forward(self, features_BCHW: Tensor) -> Tensor:
        inner_BCHW = self.bn2(self.conv_dw(self.bn1(self.conv_pw(features_BCHW))))
        out_BCHW: Tensor = self.bn3(self.conv_pwl(inner_BCHW))
        return out_BCHW + features_BCHW if self.residual else out_BCHW


class EfficientNetLite(nn.Module):
    """Images (B, C, H, W) to the outputs of the stages `FEATURES`, at 1/2 to 1/32 of the size."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv_stem = _convolution(in_channels, STEM, 3, 2)
        self.bn1 = NormalisedActivation(STEM)
        # timm tries a squeeze-excitation of 8 channels here; the same random numbers are drawn.
        for _ in range(2):
            nn.Conv2d(8, 8, 1)
        width, stages = STEM, []
        for number, stage in enumerate(STAGES):
            blocks: list[nn.Module] = []
            for _ in range(stage.blocks):
                blocks.append(InvertedResidual(width, stage) if number else SeparableBlock(width, stage))
                width, stage = stage.channels, stage._replace(stride=1)
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        _initialise_encoder(self)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        features_BCHW = self.bn1(self.conv_stem(image_BCHW))
        outputs = []
        for number, stage in enumerate(self.blocks):
            features_BCHW = stage(features_BCHW)
            if number in FEATURES:
                outputs.append(features_BCHW)
        return outputs


class Lite0Encoder(nn.Module):
    """The encoder as the decoder takes it: the image first, then the features from 1/2 to 1/32."""

    output_stride = 32

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.model = EfficientNetLite(in_channels)
        self.out_channels = [in_channels, *(STAGES[number].channels for number in FEATURES)]

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        return [image_BCHW, *self.model(image_BCHW)]


def _convolution(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Convolution without bias; with stride over 1, TensorFlow's padding depends on the image."""
    padding = kernel // 2 if stride == 1 else 0
    plain = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
    return plain if stride == 1 else SameConv2d(plain)


@torch.no_grad()
def _initialise_encoder(network: nn.Module) -> None:
    """TensorFlow's initialisation: normal weights with a variance of 2 / fan-out.

    On the meta device there is nothing to fill, and torch would import its compiler for it.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
