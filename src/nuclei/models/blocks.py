"""Optional parts of the UNet's blocks: normalisations, attention, residuals, tile upsampling.

Letters: B batch, C channels, H height, W width of the level; 1 where an axis is averaged away.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nuclei.models.unet import DoubleConv, Up, pad_to

Block = Callable[..., DoubleConv]


class InstanceNorm(nn.InstanceNorm2d):
    """Instance normalisation with a learned scale and shift, fast on a CPU in channels_last.

    torch's own leaves channels_last on a CPU and takes three times as long as batch normalisation.
    The batch normalisation of a batch of one image is that image's instance normalisation.
    """

    def forward(self, features_BCHW: Tensor) -> Tensor:
        traced = torch.compiler.is_compiling() or torch.compiler.is_exporting()
        if traced or features_BCHW.device.type != "cpu":
            return super().forward(features_BCHW)
        images = [
            functional.batch_norm(image, None, None, self.weight, self.bias, training=True, eps=self.eps)
            for image in features_BCHW.split(1)
        ]
        return torch.cat(images) if len(images) > 1 else images[0]


def make_normalisation(kind: str, channels: int) -> nn.Module:
    """Normalisation layer (batch, instance or group) with a learned scale and shift per channel.

    group: the largest number of groups up to 32 that divides the channels and leaves at least 4 in
    each.

    Source: Ioffe and Szegedy 2015 (batch), Ulyanov et al. 2016 (instance), Wu and He 2018 (group).
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "instance":
        return InstanceNorm(channels, affine=True)
    limit = max(1, min(32, channels // 4))
    groups = max(count for count in range(1, limit + 1) if channels % count == 0)
    return nn.GroupNorm(groups, channels)


class SqueezeExcite(nn.Module):
    """Channel attention: weights channels by their image-wide means. Source: Hu et al. 2018."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        mean_BC11 = features_BCHW.mean((2, 3), keepdim=True)
        weight_BC11 = torch.sigmoid(self.expand(functional.relu(self.reduce(mean_BC11))))
        return features_BCHW * weight_BC11


class Cbam(nn.Module):
    """CBAM: channel attention, then spatial attention, each from means and maxima.

    Source: Woo et al. 2018, Convolutional Block Attention Module.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.expand = nn.Conv2d(hidden, channels, 1, bias=False)
        self.place = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        summaries = (
            features_BCHW.mean((2, 3), keepdim=True),
            features_BCHW.amax((2, 3), keepdim=True),
        )
        weight_BC11 = torch.sigmoid(sum(self.expand(functional.relu(self.reduce(one))) for one in summaries))
        features_BCHW = features_BCHW * weight_BC11
        over_channels = (features_BCHW.mean(1, keepdim=True), features_BCHW.amax(1, keepdim=True))
        return features_BCHW * torch.sigmoid(self.place(torch.cat(over_channels, 1)))


CHANNEL_ATTENTION: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "se": SqueezeExcite,
    "cbam": Cbam,
}


class ConfigurableConv(DoubleConv):
    """`DoubleConv` with a choice of normalisation, channel attention and a residual connection.

    A residual block adds its input before the last ReLU, through a 1x1 convolution where the number
    of channels differs. Source: He et al. 2016.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        middle_channels: int | None = None,
        normalisation: str = "batch",
        channel_attention: str = "none",
        residual: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, middle_channels)
        self.norm1 = make_normalisation(normalisation, middle_channels or out_channels)
        self.norm2 = make_normalisation(normalisation, out_channels)
        self.attention = CHANNEL_ATTENTION[channel_attention](out_channels)
        self.residual = residual
        self.shortcut: nn.Module = nn.Identity()
        if residual and in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.shortcut = nn.Sequential(projection, make_normalisation(normalisation, out_channels))

    def forward(self, features_BCHW: Tensor) -> Tensor:
        inner_BCHW = functional.relu(self.norm1(self.conv1(features_BCHW)), inplace=True)
        inner_BCHW = self.norm2(self.conv2(inner_BCHW))
        if self.residual:
            return functional.relu(self.attention(inner_BCHW) + self.shortcut(features_BCHW))
        out_BCHW: Tensor = self.attention(functional.relu(inner_BCHW, inplace=True))
        return out_BCHW


class AttentionGate(nn.Module):
    """Attention gate: weights skip features by the decoder signal.

    Both are projected to half the channels, added, and reduced to one weight in 0..1 per pixel. The
    decoder signal is taken after its upsampling, so any size fits.

    Source: Oktay et al. 2018, Attention U-Net.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.from_skip = nn.Conv2d(channels, inner, 1, bias=False)
        self.from_below = nn.Conv2d(channels, inner, 1)
        self.weigh = nn.Conv2d(inner, 1, 1)

    def forward(self, skip_BCHW: Tensor, up_BCHW: Tensor) -> Tensor:
        joined_BCHW = functional.relu(self.from_skip(skip_BCHW) + self.from_below(up_BCHW))
        return skip_BCHW * torch.sigmoid(self.weigh(joined_BCHW))


class TileOffset(NamedTuple):
    """A tile's position along one axis of a level: first pixel, and pixels of the whole image."""

    start: int
    full: int

    def shrink(self, factor: int) -> "TileOffset":
        """The position on a level that is smaller by this factor."""
        return TileOffset(self.start // factor, self.full // factor)


class BilinearUpsampling(nn.Module):
    """Bilinear interpolation to twice the height and width, with aligned corners.

    With aligned corners, what a pixel gets depends on its position in the whole image: the shift
    grows from zero at the left edge to half a pixel at the right. A tile of a larger image has to
    be told its `tile` offsets (rows, columns) to get the values of the whole image.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tile: tuple[TileOffset, TileOffset] | None = None

    def forward(self, below_BCHW: Tensor) -> Tensor:
        if self.tile is None:
            return functional.interpolate(below_BCHW, scale_factor=2, mode="bilinear", align_corners=True)
        rows, columns = self.tile
        return _double_axis(_double_axis(below_BCHW.float(), rows, 2), columns, 3)


def _double_axis(below_BCHW: Tensor, offset: TileOffset, axis: int) -> Tensor:
    """Linear interpolation along an axis to twice its size, for a tile at `offset`."""
    size = below_BCHW.shape[axis]
    wanted = torch.arange(2 * size, device=below_BCHW.device, dtype=torch.float64) + 2 * offset.start
    source = (wanted * (offset.full - 1) / (2 * offset.full - 1) - offset.start).clamp(0, size - 1)
    first = source.floor().long()
    weight = (source - first).to(below_BCHW.dtype).view(-1, *[1] * (3 - axis))
    before, after = (below_BCHW.index_select(axis, index.clamp(max=size - 1)) for index in (first, first + 1))
    return torch.lerp(before, after, weight)


class ConfigurableUp(Up):
    """`Up` with a choice of skip connection: concat, add, or attention (a gate, then concat)."""

    def __init__(
        self,
        skip_channels: int,
        out_channels: int,
        upsampling: str = "bilinear",
        skip: str = "concat",
        block: Block = ConfigurableConv,
    ) -> None:
        # not Up's own __init__: parts draw their random weights in the order in which they are made
        nn.Module.__init__(self)
        learned = upsampling == "transposed"
        self.transposed = nn.ConvTranspose2d(2 * skip_channels, skip_channels, 2, stride=2) if learned else None
        self.bilinear = BilinearUpsampling()
        self.gate = AttentionGate(skip_channels) if skip == "attention" else None
        self.adds = skip == "add"
        self.block = block(skip_channels if self.adds else 2 * skip_channels, out_channels, skip_channels)

    def forward(self, below_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        if self.transposed is not None:
            up_BCHW = self.transposed(below_BCHW)
        else:
            # autocast interpolates in float32; the level would leave channels_last and bfloat16
            up_BCHW = self.bilinear(below_BCHW).to(skip_BCHW.dtype)
        up_BCHW = pad_to(up_BCHW, skip_BCHW.shape[-2], skip_BCHW.shape[-1])
        if self.gate is not None:
            skip_BCHW = self.gate(skip_BCHW, up_BCHW)
        joined_BCHW = skip_BCHW + up_BCHW if self.adds else torch.cat([skip_BCHW, up_BCHW], 1)
        out_BCHW: Tensor = self.block(joined_BCHW)
        return out_BCHW
