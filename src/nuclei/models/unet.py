"""The UNet, from scratch: a contracting path that says what is there, an expanding path that says where.

Shape suffixes: B batch, C channels, H height, W width of the level at hand.

On the way down each level halves the picture and doubles the channels: every pixel of the bottleneck has seen much of
the image, but knows its place only to 2**depth pixels. On the way up the size is restored level by level, and at each
the features of the same size from the way down (the skip) are joined in, which bring the exact place back.

The sizes below an odd one are rounded down (572, 286, 143, 71, 35) and padded again on the way up, so any image fits.

The first level costs most, many pixels with few channels each. With `packing = 2` each 2x2 pixels come in as channels
and go out from four channels a class, nothing of them lost, and all levels are half as large.

Source: Ronneberger, Fischer, Brox 2015, U-Net: Convolutional Networks for Biomedical Image Segmentation. As in nearly
every later implementation the convolutions are padded, so that the output has the size of the input, and normalised.
Packing: Shi et al. 2016, Efficient Sub-Pixel Convolutional Neural Network.
"""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from nuclei.config import ModelConfig
from nuclei.errors import UserError
from nuclei.models.blocks import DoubleConv, Down, OutConv, Span, Up


class UNet(nn.Module):
    """Images to logits of the same height and width; every switch of `ModelConfig` above `transformer_layers`.

    With deep supervision and in training mode the answer is a list of logits, one a decoder level: full size, half,
    quarter and so on, rounded down. In evaluation it is the full size alone.
    """

    def __init__(self, config: ModelConfig, out_channels: int) -> None:
        super().__init__()
        self.depth = config.depth
        self.packing = config.packing
        self.multiple = config.packing * 2**config.depth
        self.smallest = 2 * self.multiple
        self.in_channels = config.in_channels
        widths = [config.width * 2**level for level in range(config.depth + 1)]
        # Bilinear upsampling keeps the channels, so the block below it has to hand up half as many (see blocks.Up).
        shrink = 2 if config.upsampling == "bilinear" else 1
        self.bottleneck_channels = widths[-1] // shrink
        encoder_block, decoder_block = _block(config, "encoder"), _block(config, "decoder")

        self.inc = encoder_block(config.in_channels * config.packing**2, widths[0])
        down_channels = [*widths[:-1], self.bottleneck_channels]
        self.downs = nn.ModuleList(Down(above, here, encoder_block) for above, here in pairwise(down_channels))
        # The original drops out at the end of the contracting path, nowhere else.
        self.dropout = nn.Dropout2d(config.dropout)
        self.bridge: nn.Module = nn.Identity()

        up_channels = [widths[0], *(width // shrink for width in widths[1:-1])]
        self.ups = nn.ModuleList(
            Up(widths[level], up_channels[level], config.upsampling, config.skip, decoder_block)
            for level in reversed(range(config.depth))
        )
        out_channels *= config.packing**2
        self.outc = OutConv(up_channels[0], out_channels)
        coarse = up_channels[1:] if config.deep_supervision else []
        self.coarse_heads = nn.ModuleList(OutConv(channels, out_channels) for channels in coarse)
        _initialise(self)

    def forward(self, image_BCHW: Tensor) -> Tensor | list[Tensor]:
        self._check(image_BCHW)
        height, width = image_BCHW.shape[-2:]
        skips = [self.inc(self._pack(image_BCHW))]
        for down in self.downs:
            skips.append(down(skips[-1]))
        features_BCHW = self.bridge(self.dropout(skips.pop()))

        levels = []
        for up in self.ups:
            features_BCHW = up(features_BCHW, skips.pop())
            levels.append(features_BCHW)
        logits_BCHW = self._unpack(self.outc(levels.pop()), height, width)
        if not (self.training and self.coarse_heads):
            return logits_BCHW
        coarse = [
            self._unpack(head(level), height >> step, width >> step)
            for step, (head, level) in enumerate(zip(self.coarse_heads, reversed(levels), strict=True), 1)
        ]
        return [logits_BCHW, *coarse]

    def _pack(self, image_BCHW: Tensor) -> Tensor:
        """Squares of pixels as channels; a last one that is not whole repeats the edge."""
        if self.packing == 1:
            return image_BCHW
        for axis in (2, 3):
            size = image_BCHW.shape[axis]
            whole = (size + self.packing - 1) // self.packing * self.packing
            # written so that a graph of all sizes, which cannot ask whether this one is whole, can hold it
            if torch.compiler.is_exporting() or whole != size:
                place = torch.arange(whole, device=image_BCHW.device).clamp(max=size - 1)
                image_BCHW = image_BCHW.index_select(axis, place)
        return functional.pixel_unshuffle(image_BCHW, self.packing)

    def _unpack(self, logits_BCHW: Tensor, height: int, width: int) -> Tensor:
        if self.packing == 1:
            return logits_BCHW
        whole_BCHW = functional.pixel_shuffle(logits_BCHW, self.packing)
        # a negative padding crops, and, unlike a slice, does not ask whether there is anything to crop
        return functional.pad(whole_BCHW, (0, width - whole_BCHW.shape[-1], 0, height - whole_BCHW.shape[-2]))

    def set_place(self, place: tuple[Span, Span] | None) -> None:
        """Tells that what comes next is a tile of a larger image, which lies there (None: whole images again).

        A tile must begin at a multiple of `multiple` pixels, and end at one or at the edge of the image.
        """
        for level, up in zip(reversed(range(self.depth)), self.ups, strict=True):
            assert isinstance(up, Up)
            if up.bilinear is not None:
                size = 2 ** (level + 1)
                up.bilinear.place = place and (
                    self._pack_span(place[0]).shrink(size),
                    self._pack_span(place[1]).shrink(size),
                )

    def _pack_span(self, span: Span) -> Span:
        return Span(span.start // self.packing, -(-span.full // self.packing))

    def _check(self, image_BCHW: Tensor) -> None:
        _, channels, height, width = image_BCHW.shape
        if channels != self.in_channels:
            raise UserError(
                f"images have {channels} channels, the network takes {self.in_channels}; "
                f"set model.in_channels = {channels} or convert the images"
            )
        if min(height, width) < self.smallest:
            raise UserError(
                f"image of {height}x{width} pixels: a UNet of depth {self.depth} needs {self.smallest} a side, so that "
                "2 are left at the bottleneck; pad the image or lower model.depth"
            )


def _block(config: ModelConfig, place: str) -> partial[DoubleConv]:
    attends = config.attention_place in (place, "both")
    return partial(
        DoubleConv,
        normalisation=config.normalisation,
        channel_attention=config.channel_attention if attends else "none",
        residual=config.residual,
    )


def _initialise(network: nn.Module) -> None:
    """He's initialisation for the 3x3 convolutions, as the original asks: deviation sqrt(2 / incoming nodes)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
