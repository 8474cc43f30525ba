"""Pads images to sizes that a network can take, and crops its logits.

Letters: B batch, C channels, H height, W width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class PaddedNetwork(nn.Module):
    """A network with the interface of our own, for any image size.

    The image is padded at the right and bottom to a multiple of `multiple` and to at least
    `smallest` pixels, by reflection (by repeating the edge where the image is smaller than the
    padding). The logits are cropped again.
    """

    def __init__(self, network: nn.Module, multiple: int, smallest: int) -> None:
        super().__init__()
        self.network = network
        self.multiple, self.smallest = multiple, smallest

    def forward(self, image_BCHW: Tensor) -> Any:
        if torch.compiler.is_exporting():
            return self._forward_any_size(image_BCHW)
        height, width = image_BCHW.shape[-2:]
        bottom, right = self._missing(height), self._missing(width)
        if not (bottom or right):
            return self.network(image_BCHW)
        mode = "reflect" if bottom < height and right < width else "replicate"
        output = self.network(functional.pad(image_BCHW, (0, right, 0, bottom), mode=mode))
        if isinstance(output, Tensor):
            return output[..., :height, :width]
        full = height + bottom, width + right  # deep supervision: logits from full size to coarse
        return [
            one[..., : height * one.shape[-2] // full[0], : width * one.shape[-1] // full[1]] for one in output
        ]

    def _forward_any_size(self, image_BCHW: Tensor) -> Tensor:
        """`forward` for an exported graph of all sizes from `smallest`, without branches."""
        missing = []
        for axis in (2, 3):
            size = image_BCHW.shape[axis]
            padded = (size + self.multiple - 1) // self.multiple * self.multiple
            pixels = torch.arange(padded, device=image_BCHW.device)
            mirrored = torch.where(pixels < size, pixels, 2 * (size - 1) - pixels)
            image_BCHW = image_BCHW.index_select(axis, mirrored)
            missing.append(padded - size)
        # negative padding crops, and unlike a slice it does not branch on the size
        out_BCHW: Tensor = functional.pad(self.network(image_BCHW), (0, -missing[1], 0, -missing[0]))
        return out_BCHW

    def _missing(self, size: int) -> int:
        return -max(size, self.smallest) % self.multiple + max(self.smallest - size, 0)

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Parameters with `training.encoder_learning_rate`: those of the network's `encoder`."""
        encoder = getattr(self.network, "encoder", None)
        return list(encoder.parameters()) if isinstance(encoder, nn.Module) else []
