"""The bricks of a UNet: double convolution, a step down, a step up, the output layer, and what may be switched on.

Shape suffixes: B batch, C channels, H height, W width of the level at hand; 1 where an axis is averaged away.

A block never changes height or width by itself: 3x3 convolutions are padded by one pixel. Only `Down` halves (max-pool)
and only `Up` doubles. Convolutions that a normalisation follows have no bias, since it would subtract it again.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Block = Callable[..., "DoubleConv"]


class InstanceNorm(nn.InstanceNorm2d):
    """Each channel of each image to mean 0 and deviation 1, then a learned scale and shift.

    The same numbers as torch's, which on a CPU leaves channels_last and takes three times as long as batch
    normalisation. The batch normalisation of a batch of one image is that image's instance normalisation.
    """

    def forward(self, features_BCHW: Tensor) -> Tensor:
        traced = torch.compiler.is_compiling() or torch.compiler.is_exporting()
        if traced or features_BCHW.device.type != "cpu":
            return super().forward(features_BCHW)
        return torch.cat(
            [
                functional.batch_norm(image, None, None, self.weight, self.bias, training=True, eps=self.eps)
                for image in features_BCHW.split(1)
            ]
        )


def make_normalisation(kind: str, channels: int) -> nn.Module:
    """The normalisation layer of that kind, with a learned scale and shift a channel.

    batch averages over the batch, instance over each image and channel alone, group over each image and a group of
    channels: the largest number of groups up to 32 that divides the channels and leaves at least 4 in a group (where
    there are so many).

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
    """Weighs each channel by what all channels hold on average over the image. Source: Hu et al. 2018."""

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
    """Weighs channels by their means and maxima, then places by the mean and maximum over channels.

    Source: Woo et al. 2018, Convolutional Block Attention Module.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.expand = nn.Conv2d(hidden, channels, 1, bias=False)
        self.place = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        summaries = (features_BCHW.mean((2, 3), keepdim=True), features_BCHW.amax((2, 3), keepdim=True))
        weight_BC11 = torch.sigmoid(sum(self.expand(functional.relu(self.reduce(one))) for one in summaries))
        features_BCHW = features_BCHW * weight_BC11
        over_channels = (features_BCHW.mean(1, keepdim=True), features_BCHW.amax(1, keepdim=True))
        return features_BCHW * torch.sigmoid(self.place(torch.cat(over_channels, 1)))


CHANNEL_ATTENTION: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "se": SqueezeExcite,
    "cbam": Cbam,
}


class DoubleConv(nn.Module):
    """(convolution 3x3, normalisation, ReLU) twice, the unit that every level of a UNet has.

    `middle_channels` lie between the two convolutions (`out_channels` where absent). A residual block adds its input
    before the last ReLU, through a 1x1 convolution where the channels differ (He et al. 2016).
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
        super().__init__()
        middle_channels = middle_channels or out_channels
        self.conv1 = nn.Conv2d(in_channels, middle_channels, 3, padding=1, bias=False)
        self.norm1 = make_normalisation(normalisation, middle_channels)
        self.conv2 = nn.Conv2d(middle_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = make_normalisation(normalisation, out_channels)
        self.attention = CHANNEL_ATTENTION[channel_attention](out_channels)
        self.residual = residual
        self.shortcut: nn.Module = nn.Identity()
        if residual and in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), make_normalisation(normalisation, out_channels)
            )

    def forward(self, features_BCHW: Tensor) -> Tensor:
        inner_BCHW = functional.relu(self.norm1(self.conv1(features_BCHW)), inplace=True)
        inner_BCHW = self.norm2(self.conv2(inner_BCHW))
        if self.residual:
            return functional.relu(self.attention(inner_BCHW) + self.shortcut(features_BCHW))
        out_BCHW: Tensor = self.attention(functional.relu(inner_BCHW, inplace=True))
        return out_BCHW


class Down(nn.Module):
    """One level down: the largest of each 2x2 pixels (an odd last row or column is dropped), then `DoubleConv`."""

    def __init__(self, in_channels: int, out_channels: int, block: Block = DoubleConv) -> None:
        super().__init__()
        self.block = block(in_channels, out_channels)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        out_BCHW: Tensor = self.block(functional.max_pool2d(features_BCHW, 2))
        return out_BCHW


class AttentionGate(nn.Module):
    """Fades out those places of the skip that what comes from below gives no reason to look at.

    Both are projected to half the channels, added, and squeezed to one weight in 0..1 a pixel. The gating signal is
    taken after its upsampling, so that any size fits.

    Source: Oktay et al. 2018, Attention U-Net.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.from_skip = nn.Conv2d(channels, inner, 1, bias=False)
        self.from_below = nn.Conv2d(channels, inner, 1)
        self.weigh = nn.Conv2d(inner, 1, 1)

    def forward(self, skip_BCHW: Tensor, below_BCHW: Tensor) -> Tensor:
        joined_BCHW = functional.relu(self.from_skip(skip_BCHW) + self.from_below(below_BCHW))
        return skip_BCHW * torch.sigmoid(self.weigh(joined_BCHW))


class Span(NamedTuple):
    """Where a tile lies along one axis of a level: its first pixel, and how many the level has of the whole image."""

    start: int
    full: int

    def shrink(self, factor: int) -> "Span":
        """The span on a level that is smaller by this factor."""
        return Span(self.start // factor, self.full // factor)


class Doubling(nn.Module):
    """Bilinear interpolation to twice the height and width, the corner pixels on the corners.

    Corners on corners means that the picture is drawn out from its corner, so what a place gets depends on where it
    lies in the whole: half a pixel (of this level) between the left edge and the right. A tile of a larger image has
    to be told its `place`, rows and columns, to get what it would get there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.place: tuple[Span, Span] | None = None

    def forward(self, below_BCHW: Tensor) -> Tensor:
        if self.place is None:
            return functional.interpolate(below_BCHW, scale_factor=2, mode="bilinear", align_corners=True)
        rows, columns = self.place
        return _double_axis(_double_axis(below_BCHW.float(), rows, 2), columns, 3)


def _double_axis(below_BCHW: Tensor, span: Span, axis: int) -> Tensor:
    """Linear interpolation along an axis to twice its size, for a tile that lies at `span`."""
    size = below_BCHW.shape[axis]
    wanted = torch.arange(2 * size, device=below_BCHW.device, dtype=torch.float64) + 2 * span.start
    source = (wanted * (span.full - 1) / (2 * span.full - 1) - span.start).clamp(0, size - 1)
    first = source.floor().long()
    share = (source - first).to(below_BCHW.dtype).view(-1, *[1] * (3 - axis))
    before, after = (below_BCHW.index_select(axis, index.clamp(max=size - 1)) for index in (first, first + 1))
    return torch.lerp(before, after, share)


class Up(nn.Module):
    """One level up: double the size, meet the skip of that level, then `DoubleConv`.

    After upsampling there are always `skip_channels`, whichever way is chosen:

    - transposed: a 2x2 transposed convolution learns the upsampling and halves the channels, 2 x skip -> skip;
    - bilinear: interpolation keeps the channels, so what comes from below has only `skip_channels` already, because
      the block of the level below halved them (`out_channels` there is half of what it is with transposed).

    Mixing the two up, a bottleneck of the bilinear kind before a transposed upsampling, is the common mistake: such a
    network has channel counts that do not meet and cannot run.
    """

    def __init__(
        self,
        skip_channels: int,
        out_channels: int,
        upsampling: str = "bilinear",
        skip: str = "concat",
        block: Block = DoubleConv,
    ) -> None:
        super().__init__()
        learned = upsampling == "transposed"
        self.transposed = nn.ConvTranspose2d(2 * skip_channels, skip_channels, 2, stride=2) if learned else None
        self.bilinear = None if learned else Doubling()
        self.gate = AttentionGate(skip_channels) if skip == "attention" else None
        self.adds = skip == "add"
        self.block = block(skip_channels if self.adds else 2 * skip_channels, out_channels, skip_channels)

    def forward(self, below_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        if self.transposed is not None:
            up_BCHW = self.transposed(below_BCHW)
        else:
            assert self.bilinear is not None
            up_BCHW = self.bilinear(below_BCHW)
            # autocast interpolates in float32; joined as it is, the whole level would leave channels_last and bfloat16
            up_BCHW = up_BCHW.to(skip_BCHW.dtype)
        up_BCHW = pad_to(up_BCHW, skip_BCHW.shape[-2], skip_BCHW.shape[-1])
        if self.gate is not None:
            skip_BCHW = self.gate(skip_BCHW, up_BCHW)
        met_BCHW = skip_BCHW + up_BCHW if self.adds else torch.cat([skip_BCHW, up_BCHW], 1)
        out_BCHW: Tensor = self.block(met_BCHW)
        return out_BCHW


class OutConv(nn.Module):
    """Features to logits, pixel by pixel: a 1x1 convolution with bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        logits_BCHW: Tensor = self.conv(features_BCHW)
        return logits_BCHW


def pad_to(features_BCHW: Tensor, height: int, width: int) -> Tensor:
    """The features with zeros around them up to that size; where the difference is odd, right and bottom get more.

    Halving drops an odd row or column, so doubling returns one pixel less than the skip has; it is put back here.
    """
    missing_h, missing_w = height - features_BCHW.shape[-2], width - features_BCHW.shape[-1]
    # a graph for all sizes cannot ask whether this one is odd: it always pads, by nothing where nothing is missing
    if not torch.compiler.is_exporting() and not missing_h and not missing_w:
        return features_BCHW
    top, left = missing_h // 2, missing_w // 2
    return functional.pad(features_BCHW, (left, missing_w - left, top, missing_h - top))
