"""Exports a trained network to ONNX and torch.export, from raw pixels to maps, and checks both."""

import argparse
import logging
from pathlib import Path

from nuclei.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="model.pt of a trained fold, or .safetensors"
    )
    parser.add_argument("--onnx", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--program", type=Path, required=True, help="torch.export file (.pt2)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()

    logging.info("exporting %s", args.checkpoint)

    import torch

    from nuclei.inference.weights import load_trained
    from nuclei.publishing.onnx import TOLERANCE, export_checkpoint

    predictor = load_trained(args.checkpoint, torch.device("cpu"))
    differences = export_checkpoint(predictor.model, predictor.config, args.onnx, args.program)
    for path, difference in differences.items():
        print(
            f"{path}: {path.stat().st_size / 1e6:.1f} MB, within {difference:.1g} of the "
            f"checkpoint ({TOLERANCE:g})"
        )


if __name__ == "__main__":
    raise SystemExit(run(main))
