"""Convolutions with TensorFlow's "same" padding that can be exported for all image sizes.

TensorFlow's networks, and timm's ports of them, pad by the least that gives ceil(size / stride)
output pixels, the larger half at the right and bottom. timm computes it with floating-point
numbers, which an exported graph of all sizes cannot hold; here they are integers.

Letters: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class SameConv2d(nn.Conv2d):
    """Replaces timm's `Conv2dSame`: the same parameters under the same names, the same output."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        # on the meta device, without memory: the parameters are those of `convolution`
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
    """Zero-pads the features so that a window of `reach` pixels fits ceil(size / stride) times.

    `reach` and `stride` are pixels along rows and columns.
    """
    (top, bottom), (left, right) = find_gaps(features_BCHW, reach, stride)
    return functional.pad(features_BCHW, (left, right, top, bottom))


def find_gaps(features_BCHW: Tensor, reach: Sequence[int], stride: Sequence[int]) -> list[tuple[int, int]]:
    """Rows that `pad_same` adds at the top and bottom, columns at the left and right."""
    gaps = [
        torch.sym_max(window - step + -size % step, 0)
        for size, window, step in zip(features_BCHW.shape[-2:], reach, stride, strict=True)
    ]
    return [(gap // 2, gap - gap // 2) for gap in gaps]


def replace_same(network: nn.Module) -> None:
    """Replaces every `Conv2dSame` of timm by `SameConv2d`, in place; parameter names stay."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            # by name: importing timm takes seconds, and it may be missing
            if type(child).__name__ == "Conv2dSame":
                assert isinstance(child, nn.Conv2d)
                setattr(parent, name, SameConv2d(child))
