"""Summary of a network: the shapes of its layers, parameters and multiply-adds."""

from typing import Any

import torch
import torchinfo
from torch.utils.flop_counter import FlopCounterMode

from nuclei.arrays import CHANNELS
from nuclei.config import ModelConfig
from nuclei.models.compiler import hold_compiler_back
from nuclei.models.factory import OURS, build_model


def summarise(model: ModelConfig, size: int) -> tuple[Any, list[tuple[int, ...]]]:
    """torchinfo's statistics of one square image, and (C, H, W) of encoder levels (our UNets only).

    The total of multiply-adds is torch's own count: torchinfo counts a transposed convolution by
    its output and leaves out the products of attention.
    """
    hold_compiler_back()
    ours = model.architecture in OURS
    # the meta device computes shapes without numbers; the library's networks cannot be built there
    device = "meta" if ours else "cpu"
    with torch.device(device):
        network: Any = build_model(model, CHANNELS, pretrained=False).eval()
    levels: list[tuple[int, ...]] = []
    for block in [network.inc, *network.downs] if ours else []:
        block.register_forward_hook(lambda module, inputs, output: levels.append(tuple(output.shape[1:])))
    shape = (1, model.in_channels, size, size)
    columns = ("output_size", "num_params", "mult_adds")
    with FlopCounterMode(display=False) as counter:
        statistics = torchinfo.summary(
            network, shape, device=device, depth=4, col_names=columns, col_width=20, verbose=0
        )
    statistics.total_mult_adds = counter.get_total_flops() // 2
    return statistics, levels


def layer_table(statistics: Any) -> str:
    """torchinfo's table of layers without its totals, whose unit reads `Units.GIGABYTES` there."""
    return str(statistics).split("\nTotal params")[0].rstrip("=\n")
