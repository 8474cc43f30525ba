"""From logits to probabilities, for both target schemes."""

import torch
from torch import Tensor

from nuclei.config import TargetConfig


def activate(logits_BCHW: Tensor, target: TargetConfig) -> Tensor:
    """Probabilities (B, 3, H, W) in 0..1, float32, channels FOREGROUND, BORDER, CORE.

    energy: the sigmoid of each channel. three_class, with p the softmax over background, body and
    border: foreground is 1 - p(background), border is p(border), core is p(body) x (1 - p(border)).
    """
    logits_BCHW = logits_BCHW.float()
    if target.scheme == "energy":
        return torch.sigmoid(logits_BCHW)
    background, body, border = torch.softmax(logits_BCHW, 1).unbind(1)
    return torch.stack([1 - background, border, body * (1 - border)], 1)
