"""Shows a config's network layer by layer: shapes, parameters, multiply-adds, memory; then the levels of our UNet."""

import argparse
from pathlib import Path
from typing import Any

from nuclei.cli import run


def summarise(config: Any, size: int) -> tuple[Any, list[tuple[int, ...]]]:
    """torchinfo's statistics for one square image, and (C, H, W) of each level on the way down (ours only)."""
    import torch
    import torchinfo

    from nuclei.models import OURS, build_model
    from nuclei.targets import CHANNELS

    ours = config.model.architecture in OURS
    # on the device `meta` shapes are computed but no numbers; the library's networks need numbers to be built
    device = "meta" if ours else "cpu"
    with torch.device(device):
        network = build_model(config.model, CHANNELS, pretrained=False).eval()
    levels: list[tuple[int, ...]] = []
    for block in [network.inc, *network.downs] if ours else []:
        block.register_forward_hook(lambda module, given, answer: levels.append(tuple(answer.shape[1:])))
    shape = (1, config.model.in_channels, size, size)
    columns = ("input_size", "output_size", "num_params", "mult_adds")
    statistics = torchinfo.summary(network, shape, device=device, depth=4, col_names=columns, verbose=0)
    return statistics, levels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="configs/<experiment>.toml")
    parser.add_argument("--size", type=int, default=256, help="height and width of the image (default: 256)")
    arguments = parser.parse_args()

    from nuclei.config import read_config

    statistics, levels = summarise(read_config(arguments.config), arguments.size)
    print(statistics)
    for number, (channels, height, width) in enumerate(levels):
        print(f"level {number}: {channels:5d} channels, {height} x {width}")
    print(f"parameters     {statistics.total_params:,}")
    print(f"multiply-adds  {statistics.total_mult_adds / 1e9:.2f} G")
    print(f"activations    {statistics.total_output_bytes / 2**20:.0f} MiB an image, forward and backward, float32")


if __name__ == "__main__":
    raise SystemExit(run(main))
