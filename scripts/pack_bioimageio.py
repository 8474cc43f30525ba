"""Packs a trained network with ONNX for bioimage.io, and runs bioimage.io's own test."""

import argparse
import logging
from pathlib import Path

from nuclei.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="model.pt of a trained fold, or .safetensors"
    )
    parser.add_argument("--onnx", type=Path, required=True, help="the same network, exported")
    parser.add_argument("--out", type=Path, required=True, help="package to write (.zip)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()

    logging.info("packing %s, and testing the package", args.checkpoint)

    import torch

    from nuclei.inference.weights import load_trained
    from nuclei.models.weights_file import SUFFIX, read_card
    from nuclei.publishing.bioimageio import pack_network

    predictor = load_trained(args.checkpoint, torch.device("cpu"))
    card = read_card(args.checkpoint) if args.checkpoint.suffix == SUFFIX else None
    pack_network(predictor, card, args.onnx, args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, passed bioimage.io's test")
    print(f"again:  bioimageio test {args.out}")


if __name__ == "__main__":
    raise SystemExit(run(main))
