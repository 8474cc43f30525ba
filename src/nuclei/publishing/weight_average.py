"""Average of the weights of networks that were fine-tuned from one start ("model soup").

Source: Wortsman et al., Model soups (2022); Robust fine-tuning of zero-shot models (2022).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nuclei.errors import UserError
from nuclei.models.checkpoint_file import load_checkpoint
from nuclei.models.weights_file import SUFFIX, read_weights

Tensors = Mapping[str, torch.Tensor]


def read_network(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], list[str]]:
    """Config, tensors and ids of the training images of a checkpoint (.pt) or a file of weights.

    Raises:
        UserError: as in `load_checkpoint` and `read_weights`.
    """
    if path.suffix == SUFFIX:
        card, tensors = read_weights(path)
        return card.config, tensors, card.trained_on
    checkpoint = load_checkpoint(path)
    return checkpoint["config"], checkpoint["model"], checkpoint["trained_on"]


def average_tensors(networks: Sequence[Tensors], weights: Sequence[float]) -> dict[str, torch.Tensor]:
    """The weighted mean of each tensor, float32; whole numbers are those of the first network.

    Raises:
        UserError: networks of different tensors; not one positive weight each.
    """
    if len(networks) != len(weights) or min(weights, default=0) <= 0:
        raise UserError(f"{len(networks)} networks, weights {list(weights)}; give one above 0 each")
    shapes = [{name: tensor.shape for name, tensor in network.items()} for network in networks]
    if any(each != shapes[0] for each in shapes):
        raise UserError("the networks differ in their tensors; average networks of one config")
    return {name: _mean([network[name] for network in networks], weights) for name in shapes[0]}


def _mean(tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    if not tensors[0].is_floating_point():
        return tensors[0]
    total = torch.zeros_like(tensors[0], dtype=torch.float32)
    for tensor, weight in zip(tensors, weights, strict=True):
        total += tensor.float() * weight
    return total / sum(weights)
