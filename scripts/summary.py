"""Prints a config's network by layer: shapes, parameters, multiply-adds, memory, UNet levels."""

import argparse
import logging
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="configs/<experiment>.toml")
    parser.add_argument("--size", type=int, default=256, help="image side (default: 256)")
    args = parser.parse_args()

    from nuclei.config_files import read_config

    config = read_config(args.config)
    logging.info("%s on an image of %d x %d pixels", config.name, args.size, args.size)

    from nuclei.models.summary import layer_table, summarise  # torch: seconds

    statistics, levels = summarise(config.model, args.size)
    print(layer_table(statistics))
    for number, (channels, height, width) in enumerate(levels):
        print(f"level {number}: {channels:5d} channels, {height} x {width}")
    print(f"parameters     {statistics.total_params:,}, {statistics.total_params * 4 / 1e6:.1f} MB in float32")
    print(f"multiply-adds  {statistics.total_mult_adds / 1e9:.2f} billion per image")
    print(
        f"activations    {statistics.total_output_bytes / 2**20:.0f} MiB per image, forward and "
        "backward, float32"
    )


if __name__ == "__main__":
    raise SystemExit(run(main))
