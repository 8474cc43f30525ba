"""Test-time augmentation (TTA): the eight flips and transposes of an image, averaged."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

import torch


class Flip(NamedTuple):
    """One of the eight flips and transposes: transposed or not, then flipped along `axes`."""

    transposed: bool
    axes: tuple[int, ...]

    def apply(self, pixels_CHW: torch.Tensor) -> torch.Tensor:
        return (pixels_CHW.transpose(-1, -2) if self.transposed else pixels_CHW).flip(self.axes)

    def undo(self, output_CHW: torch.Tensor) -> torch.Tensor:
        flipped = output_CHW.flip(self.axes)
        return flipped.transpose(-1, -2) if self.transposed else flipped


def list_flips(count: int) -> list[Flip]:
    """The 1, 2, 4 or 8 flips of `prediction.flips`; the first is the image itself."""
    axes = [(), (-1,), (-2,), (-1, -2)][: min(count, 4)]
    return [Flip(transposed, each) for transposed in (False, True)[: max(1, count // 4)] for each in axes]


def flips_for_scale(count: int, index: int) -> list[Flip]:
    """1, 2, 4 or 8 flips for one scale of several, by its index: neighbouring scales get different
    ones.

    With one flip per scale, two of four scales are transposed, and two are flipped along each axis;
    with two per scale, four scales have all eight between them.
    """
    order = [list_flips(8)[number] for number in (0, 3, 5, 6, 7, 4, 2, 1)]
    chosen = [order[(index + turn * 8 // count) % 8] for turn in range(count)]
    return sorted(chosen, key=lambda flip: flip.transposed)


def average_over_flips(
    forward: Callable[[torch.Tensor], torch.Tensor], pixels_CHW: torch.Tensor, flips: Sequence[Flip]
) -> torch.Tensor:
    """Mean (C, H, W) of the network's outputs for the flipped images, each flipped back.

    `forward` takes and returns a batch. Flips of one shape share a batch, so transposed ones must
    be last.
    """
    outputs = []
    for _, same_shape in groupby(flips, key=lambda flip: flip.transposed):
        group = list(same_shape)
        batch = torch.stack([flip.apply(pixels_CHW) for flip in group])
        outputs += [flip.undo(output) for flip, output in zip(group, forward(batch), strict=True)]
    return torch.stack(outputs).mean(dim=0)
