"""Fine-tunes a network on pictures that you corrected; scores it on pictures held out."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, required=True, help="folder with images/ and labels/, or results"
    )
    parser.add_argument("--out", type=Path, required=True, help="weights file (.safetensors)")

    from nuclei.training.options import add_options, run_finetuning

    add_options(parser)
    print(run_finetuning(parser.parse_args()))


if __name__ == "__main__":
    raise SystemExit(run(main))
