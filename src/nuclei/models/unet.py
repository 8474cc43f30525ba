"""A plain UNet in one file: read it from top to bottom, or copy it.

An encoder halves the image level by level and doubles the channels: it finds out what is there. A
decoder doubles the size again and joins, at each level, the encoder's features of that size (the
skip), which bring back where it is. `unet_variants.py` builds the configurable UNet on these
classes.

Letters: B batch, C channels, H height, W width of the level.

Source: Ronneberger, Fischer, Brox 2015, U-Net: Convolutional Networks for Biomedical Image
Segmentation. As in most later implementations convolutions are padded, so that the output has the
size of the input, and followed by batch normalisation.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class DoubleConv(nn.Module):
    """(3x3 convolution, batch normalisation, ReLU) twice; height and width stay.

    The convolutions have no bias, since the normalisation would subtract it again.
    """

    def __init__(self, in_channels: int, out_channels: int, middle_channels: int | None = None) -> None:
        super().__init__()
        middle_channels = middle_channels or out_channels
        self.conv1 = nn.Conv2d(in_channels, middle_channels, 3, padding=1, bias=False)
        self.norm1: nn.Module = nn.BatchNorm2d(middle_channels)
        self.conv2 = nn.Conv2d(middle_channels, out_channels, 3, padding=1, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        features_BCHW = functional.relu(self.norm1(self.conv1(features_BCHW)), inplace=True)
        return functional.relu(self.norm2(self.conv2(features_BCHW)), inplace=True)


class Down(nn.Module):
    """One level down: 2x2 max-pooling, which drops an odd last row or column, then `DoubleConv`."""

    def __init__(
        self, in_channels: int, out_channels: int, block: Callable[..., DoubleConv] = DoubleConv
    ) -> None:
        super().__init__()
        self.block = block(in_channels, out_channels)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        out_BCHW: Tensor = self.block(functional.max_pool2d(features_BCHW, 2))
        return out_BCHW


class Up(nn.Module):
    """One level up: twice the size, concatenation with the skip, then `DoubleConv`.

    What comes from below must have `skip_channels` after the upsampling. A transposed convolution
    halves the channels itself, from 2 x skip to skip. Bilinear interpolation keeps them, so the
    block of the level below must already return `skip_channels`. Mixing the two is a common
    mistake.
    """

    def __init__(self, skip_channels: int, out_channels: int, upsampling: str = "bilinear") -> None:
        super().__init__()
        self.transposed: nn.Module | None = None
        if upsampling == "transposed":
            self.transposed = nn.ConvTranspose2d(2 * skip_channels, skip_channels, 2, stride=2)
        self.block: nn.Module = DoubleConv(2 * skip_channels, out_channels, skip_channels)

    def forward(self, below_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        if self.transposed is not None:
            up_BCHW = self.transposed(below_BCHW)
        else:
            up_BCHW = functional.interpolate(below_BCHW, scale_factor=2, mode="bilinear", align_corners=True)
        up_BCHW = pad_to(up_BCHW, skip_BCHW.shape[-2], skip_BCHW.shape[-1])
        out_BCHW: Tensor = self.block(torch.cat([skip_BCHW, up_BCHW], 1))
        return out_BCHW


class OutConv(nn.Module):
    """Features to logits, pixel by pixel: a 1x1 convolution with bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        logits_BCHW: Tensor = self.conv(features_BCHW)
        return logits_BCHW


class UNet(nn.Module):
    """Images (B, in_channels, H, W) to logits (B, out_channels, H, W), any H and W.

    Both are at least 2**(depth + 1), so that the bottleneck has two pixels a side.

    `width` is the number of channels of the first level, `depth` how often the image is halved.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 64,
        depth: int = 4,
        upsampling: str = "bilinear",
        encoder_block: Callable[..., DoubleConv] = DoubleConv,
        up: Callable[..., Any] = Up,
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        # with bilinear upsampling each block returns half as many channels, see Up
        shrink = 2 if upsampling == "bilinear" else 1
        encoder_channels = [*widths[:-1], widths[-1] // shrink]
        decoder_channels = [widths[0], *(channels // shrink for channels in widths[1:-1])]
        self.inc = encoder_block(in_channels, width)
        self.downs = nn.ModuleList(
            Down(above, here, encoder_block) for above, here in pairwise(encoder_channels)
        )
        self.ups = nn.ModuleList(
            up(widths[level], decoder_channels[level], upsampling) for level in reversed(range(depth))
        )
        self.outc = OutConv(decoder_channels[0], out_channels)

    def forward(self, image_BCHW: Tensor) -> Any:
        skips = self.encode(image_BCHW)
        return self.outc(self.decode(skips.pop(), skips)[-1])

    def encode(self, image_BCHW: Tensor) -> list[Tensor]:
        """Features of every level, full size first."""
        features = [self.inc(image_BCHW)]
        for down in self.downs:
            features.append(down(features[-1]))
        return features

    def decode(self, features_BCHW: Tensor, skips: list[Tensor]) -> list[Tensor]:
        """Decoder features of every level, full size last, from bottleneck and skips."""
        levels = []
        for up, skip_BCHW in zip(self.ups, reversed(skips), strict=True):
            features_BCHW = up(features_BCHW, skip_BCHW)
            levels.append(features_BCHW)
        return levels


def pad_to(features_BCHW: Tensor, height: int, width: int) -> Tensor:
    """Zero-pads features to a size; an odd difference goes to the right and bottom.

    Pooling drops an odd row or column, so upsampling returns one pixel less than the skip has.
    """
    missing_h, missing_w = height - features_BCHW.shape[-2], width - features_BCHW.shape[-1]
    # an exported graph of all sizes cannot branch on the size: it always pads, by zero pixels if
    # none is missing
    if not torch.compiler.is_exporting() and not missing_h and not missing_w:
        return features_BCHW
    top, left = missing_h // 2, missing_w // 2
    return functional.pad(features_BCHW, (left, missing_w - left, top, missing_h - top))
