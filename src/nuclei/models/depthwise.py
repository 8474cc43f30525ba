"""Depthwise convolutions with a fast backward pass on a CPU in bfloat16.

oneDNN runs the forward pass fast, but falls back to slow reference code for the gradient of the
input where the stride is over 1, and of the weight where the kernel is over 3: a third of a
training step of EfficientNet-Lite0. In float32 the same gradients take a third to a tenth of the
time. Other devices and types use torch's own convolution.

Letters: B batch, C channels, H height, W width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nuclei.models.same_padding import SameConv2d, pad_same, replace_same


class DepthwiseConv2d(nn.Module):
    """Replaces a depthwise `nn.Conv2d` without bias, whose weight it shares under the same name."""

    def __init__(self, convolution: nn.Conv2d, pads_like_tensorflow: bool) -> None:
        super().__init__()
        self.weight = convolution.weight
        self.stride, self.dilation = convolution.stride[0], convolution.dilation[0]
        self.padding = int(convolution.padding[0])
        self.pads_like_tensorflow = pads_like_tensorflow

    def forward(self, features_BCHW: Tensor) -> Tensor:
        if self.pads_like_tensorflow:
            reach = self.dilation * (self.weight.shape[-1] - 1) + 1
            features_BCHW = pad_same(features_BCHW, [reach] * 2, [self.stride] * 2)
        if torch.is_grad_enabled() and features_BCHW.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            out_BCHW: Tensor = _Depthwise.apply(
                features_BCHW.to(kind), self.weight, self.stride, self.padding, self.dilation
            )
            return out_BCHW
        channels = self.weight.shape[0]
        return functional.conv2d(
            features_BCHW,
            self.weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            groups=channels,
        )


class _Depthwise(torch.autograd.Function):
    """Convolution in the autocast type, with the slow gradients computed in float32."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.geometry = [stride] * 2, [padding] * 2, [dilation] * 2
        return functional.conv2d(
            features,
            weight.to(features.dtype),
            None,
            stride,
            padding,
            dilation,
            groups=weight.shape[0],
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        features, weight = ctx.saved_tensors
        kind = features.dtype
        if ctx.geometry[0][0] > 1:  # the gradient of the input is slow too
            to_input, to_weight = _gradients(ctx, gradient.float(), features.float(), weight, [True, True])
            return to_input.to(kind), to_weight, None, None, None
        to_input, _ = _gradients(ctx, gradient, features, weight.to(kind), [True, False])
        _, to_weight = _gradients(ctx, gradient.float(), features.float(), weight, [False, True])
        return to_input, to_weight, None, None, None


def _gradients(
    ctx: Any, gradient: Tensor, features: Tensor, weight: Tensor, wanted: list[bool]
) -> tuple[Any, Any]:
    stride, padding, dilation = ctx.geometry
    to_input, to_weight, _ = torch.ops.aten.convolution_backward(
        gradient,
        features,
        weight,
        None,
        stride,
        padding,
        dilation,
        False,
        [0, 0],
        weight.shape[0],
        [*wanted, False],
    )
    return to_input, to_weight


def replace_depthwise(network: nn.Module) -> None:
    """Replaces every depthwise convolution by `DepthwiseConv2d`, in place; parameter names stay."""
    replace_same(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if _is_depthwise(child):
                assert isinstance(child, nn.Conv2d)
                setattr(parent, name, DepthwiseConv2d(child, isinstance(child, SameConv2d)))


def _is_depthwise(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.groups == module.in_channels == module.out_channels > 1
        and module.bias is None
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and len(set(module.kernel_size)) == len(set(module.stride)) == len(set(module.padding)) == 1
    )
