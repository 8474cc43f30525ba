"""Convolutions that pad as TensorFlow does, for images of a size that is known and for graphs of all sizes.

TensorFlow's networks, and timm's ports of them, pad as little as it takes to get ceil(size / stride) pixels out, and
where that is an odd number the larger half goes behind. How much is a matter of the size. timm works it out with
floating point numbers, which no graph of all sizes can hold; here it is whole numbers that a tracer can follow.

Shape suffixes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class SameConv2d(nn.Conv2d):
    """Takes the place of timm's `Conv2dSame`, has its parameters under the same names and gives the same answers."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        # without memory of their own: the parameters are those of the other
        super().__init__(
            convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size,  # type: ignore[arg-type]
            convolution.stride,  # type: ignore[arg-type]
            dilation=convolution.dilation,  # type: ignore[arg-type]
            groups=convolution.groups,
            bias=convolution.bias is not None,
            device="meta",
        )
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, features_BCHW: Tensor) -> Tensor:
        reach = [space * (side - 1) + 1 for side, space in zip(self.kernel_size, self.dilation, strict=True)]
        return super().forward(pad_same(features_BCHW, reach, self.stride))


def pad_same(features_BCHW: Tensor, reach: Sequence[int], stride: Sequence[int]) -> Tensor:
    """The features with zeros around them, such that a window of `reach` pixels fits ceil(size / stride) times.

    `reach` and `stride` are in pixels, of rows and of columns.
    """
    gaps = [
        torch.sym_max(window - step + -size % step, 0)
        for size, window, step in zip(features_BCHW.shape[-2:], reach, stride, strict=True)
    ]
    (top, left), (height, width) = (gap // 2 for gap in gaps), gaps
    return functional.pad(features_BCHW, (left, width - left, top, height - top))


def replace_same(network: nn.Module) -> None:
    """Puts `SameConv2d` in the place of every `Conv2dSame` of timm, in place; names of parameters stay."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            # by name: the library takes seconds to load and may not be there
            if type(child).__name__ == "Conv2dSame":
                assert isinstance(child, nn.Conv2d)
                setattr(parent, name, SameConv2d(child))
