"""The configurable UNet: the plain one with other blocks, packing, dropout, deep supervision.

Letters: B batch, C channels, H height, W width of the level.

With `packing = 2`, the pixels of each 2x2 square become channels of the input, and each output
channel comes from four: nothing is lost, and every level, of which the first costs most, is half as
large.

Source: Ronneberger et al. 2015 (U-Net); Shi et al. 2016, Efficient Sub-Pixel Convolutional Neural
Network (packing).
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from nuclei.config import ModelConfig
from nuclei.errors import UserError
from nuclei.models.blocks import ConfigurableConv, ConfigurableUp, TileOffset
from nuclei.models.unet import OutConv, UNet


class ConfigurableUNet(UNet):
    """Images (B, C, H, W) to logits of the same height and width, from `smallest` up.

    With deep supervision and in training mode the output is a list of logits, one per decoder
    level: full size, half, quarter and so on, rounded down. In evaluation it is the full size
    alone.
    """

    def __init__(self, config: ModelConfig, out_channels: int) -> None:
        pixels = config.packing**2
        super().__init__(
            config.in_channels * pixels,
            out_channels * pixels,
            config.width,
            config.depth,
            config.upsampling,
            _block(config, "encoder"),
            partial(ConfigurableUp, skip=config.skip, block=_block(config, "decoder")),
        )
        self.depth = config.depth
        self.packing = config.packing
        self.multiple = config.packing * 2**config.depth
        self.smallest = 2 * self.multiple
        self.in_channels = config.in_channels
        # the original has dropout at the end of the encoder only
        self.dropout = nn.Dropout2d(config.dropout)
        self.bridge: nn.Module = nn.Identity()
        shrink = 2 if config.upsampling == "bilinear" else 1
        self.bottleneck_channels = config.width * 2**config.depth // shrink
        coarse = [config.width * 2**level // shrink for level in range(1, config.depth)]
        self.coarse_heads = nn.ModuleList(
            OutConv(channels, out_channels * pixels) for channels in coarse if config.deep_supervision
        )
        _initialise(self)

    def forward(self, image_BCHW: Tensor) -> Tensor | list[Tensor]:
        self._check(image_BCHW)
        height, width = image_BCHW.shape[-2:]
        skips = self.encode(self._pack(image_BCHW))
        levels = self.decode(self.bridge(self.dropout(skips.pop())), skips)
        logits_BCHW = self._unpack(self.outc(levels.pop()), height, width)
        if not (self.training and self.coarse_heads):
            return logits_BCHW
        coarse = [
            self._unpack(head(level), height >> step, width >> step)
            for step, (head, level) in enumerate(zip(self.coarse_heads, reversed(levels), strict=True), 1)
        ]
        return [logits_BCHW, *coarse]

    def _pack(self, image_BCHW: Tensor) -> Tensor:
        """Squares of pixels to channels; edges repeat into incomplete squares (right, bottom)."""
        if self.packing == 1:
            return image_BCHW
        for axis in (2, 3):
            size = image_BCHW.shape[axis]
            whole = (size + self.packing - 1) // self.packing * self.packing
            # an exported graph of all sizes cannot branch on the size
            if torch.compiler.is_exporting() or whole != size:
                pixels = torch.arange(whole, device=image_BCHW.device).clamp(max=size - 1)
                image_BCHW = image_BCHW.index_select(axis, pixels)
        return functional.pixel_unshuffle(image_BCHW, self.packing)

    def _unpack(self, logits_BCHW: Tensor, height: int, width: int) -> Tensor:
        if self.packing == 1:
            return logits_BCHW
        whole_BCHW = functional.pixel_shuffle(logits_BCHW, self.packing)
        # negative padding crops, and unlike a slice it does not branch on the size
        return functional.pad(whole_BCHW, (0, width - whole_BCHW.shape[-1], 0, height - whole_BCHW.shape[-2]))

    def set_tile(self, tile: tuple[TileOffset, TileOffset] | None) -> None:
        """Sets the offsets of the next input, a tile of a larger image; None: whole images again.

        A tile must begin at a multiple of `multiple` pixels, and end at one or at the edge of the
        image.
        """
        for level, up in zip(reversed(range(self.depth)), self.ups, strict=True):
            assert isinstance(up, ConfigurableUp)
            size = 2 ** (level + 1)
            up.bilinear.tile = tile and (
                self._pack_offset(tile[0]).shrink(size),
                self._pack_offset(tile[1]).shrink(size),
            )

    def _pack_offset(self, offset: TileOffset) -> TileOffset:
        return TileOffset(offset.start // self.packing, -(-offset.full // self.packing))

    def _check(self, image_BCHW: Tensor) -> None:
        _, channels, height, width = image_BCHW.shape
        if channels != self.in_channels:
            raise UserError(
                f"images have {channels} channels, the network takes {self.in_channels}; "
                f"set model.in_channels = {channels} or convert the images"
            )
        if min(height, width) < self.smallest:
            raise UserError(
                f"image of {height}x{width} pixels: a UNet of depth {self.depth} needs "
                f"{self.smallest} a side, so that 2 are left at the bottleneck; pad the image or "
                "lower model.depth"
            )


def _block(config: ModelConfig, side: str) -> partial[ConfigurableConv]:
    """The block of one side of the UNet, encoder or decoder."""
    attends = config.attention_place in (side, "both")
    return partial(
        ConfigurableConv,
        normalisation=config.normalisation,
        channel_attention=config.channel_attention if attends else "none",
        residual=config.residual,
    )


def _initialise(network: nn.Module) -> None:
    """He initialisation of the 3x3 convolutions, as in the original: std sqrt(2 / fan-in)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
