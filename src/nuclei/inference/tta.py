"""The eight ways to lay an image before a network, and the mean of its answers."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch


class View(NamedTuple):
    """One of the eight ways to lay an image: transposed or not, then mirrored along the axes named."""

    transposed: bool
    mirror: tuple[int, ...]

    def turn(self, pixels_CHW: torch.Tensor) -> torch.Tensor:
        return (pixels_CHW.transpose(-1, -2) if self.transposed else pixels_CHW).flip(self.mirror)

    def turn_back(self, answer_CHW: torch.Tensor) -> torch.Tensor:
        turned = answer_CHW.flip(self.mirror)
        return turned.transpose(-1, -2) if self.transposed else turned


def list_views(flips: int) -> list[View]:
    """The 1, 2, 4 or 8 views of `prediction.flips`."""
    mirrors = [(), (-1,), (-2,), (-1, -2)][: min(flips, 4)]
    return [View(transposed, mirror) for transposed in (False, True)[: max(1, flips // 4)] for mirror in mirrors]


def deal_views(flips: int, place: int) -> list[View]:
    """1, 2, 4 or 8 views for the zoom at a place, none of them those of its neighbours while there are others.

    Of four zooms with a view each two are transposed, and two mirrored along each axis; with two views each they have
    all eight.
    """
    order = [list_views(8)[number] for number in (0, 3, 5, 6, 7, 4, 2, 1)]
    dealt = [order[(place + turn * 8 // flips) % 8] for turn in range(flips)]
    return sorted(dealt, key=lambda view: view.transposed)


def average_views(forward: Any, pixels_CHW: torch.Tensor, views: Sequence[View]) -> torch.Tensor:
    """Mean (C, H, W) of `forward`'s answers to mirrored and transposed views, the transposed ones last, turned back."""
    answers = []
    for _, same_size in groupby(views, key=lambda view: view.transposed):
        together = list(same_size)
        batch = torch.stack([view.turn(pixels_CHW) for view in together])
        answers += [view.turn_back(answer) for view, answer in zip(together, forward(batch), strict=True)]
    return torch.stack(answers).mean(dim=0)
