"""UNet decoder on a pretrained encoder.

Letters: B batch, C channels, H height, W width.

The encoder's first features have half the image's size. A decoder level at full size would take a
third of a training step for little gain. So the last level stays at half size, gets the image
itself with each 2x2 pixels packed into channels, and returns four values per channel, which are
unpacked to full size.

Source: Shi et al. 2016, Efficient Sub-Pixel Convolutional Neural Network (packing and unpacking).
"""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from nuclei.errors import UserError
from nuclei.models.blocks import Block, ConfigurableConv
from nuclei.models.depthwise import replace_depthwise

ENCODER_UNET = "encoder_unet"
"""Name of this architecture in configs."""
PACKING = 2
"""Side of the pixel squares that are packed into channels at the last level."""


class EncoderUNet(nn.Module):
    """Images (B, C, H, W), H and W multiples of the encoder's stride, to logits of the same size.

    `widths` are the channels of the decoder's levels, deepest first.
    """

    def __init__(
        self,
        encoder: Any,
        in_channels: int,
        widths: tuple[int, ...],
        out_channels: int,
        frozen_stages: int = 0,
        block: Block = ConfigurableConv,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.frozen = _first_stages(encoder, frozen_stages)
        for module in self.frozen:
            module.requires_grad_(False)
        replace_depthwise(encoder)
        *skips, below = encoder.out_channels[1:]
        skips = skips[::-1]
        skips[-1] += in_channels * PACKING**2
        self.ups = nn.ModuleList()
        for skip, width in zip(skips, widths, strict=True):
            self.ups.append(block(below + skip, width))
            below = width
        self.outc = nn.Conv2d(below, out_channels * PACKING**2, 3, padding=1)

    def train(self, mode: bool = True) -> Self:
        """Frozen stages stay in evaluation mode: their normalisation statistics do not change."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, image_BCHW: Tensor) -> Tensor:
        *skips, features_BCHW = self.encoder(image_BCHW)[1:]
        skips[0] = torch.cat([skips[0], functional.pixel_unshuffle(image_BCHW, PACKING).to(skips[0].dtype)], 1)
        for up in self.ups:
            skip_BCHW = skips.pop()
            larger_BCHW = functional.interpolate(features_BCHW, scale_factor=2, mode="nearest")
            features_BCHW = up(torch.cat([larger_BCHW.to(skip_BCHW.dtype), skip_BCHW], 1))
        return functional.pixel_shuffle(self.outc(features_BCHW), PACKING)


def _first_stages(encoder: Any, count: int) -> list[nn.Module]:
    """The modules of timm's EfficientNet up to its `count`-th stage; none where count is 0."""
    if not count:
        return []
    network = getattr(encoder, "model", encoder)
    blocks = getattr(network, "blocks", None)
    if blocks is None or not hasattr(network, "conv_stem"):
        raise UserError(
            f"model.frozen_stages = {count}: only encoders of the EfficientNet family "
            "(tu-...efficientnet...) have stages to freeze; delete the key"
        )
    if count > len(blocks):
        raise UserError(f"model.frozen_stages = {count}, but the encoder has {len(blocks)} stages")
    return [network.conv_stem, network.bn1, *blocks[:count]]
