"""Measures a trained fold for the comparison: score on the held-out images, and cost."""

import argparse
import logging
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="<run>/fold_<k>/model.pt, with log.csv beside it",
    )
    parser.add_argument("--processed", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--splits", type=Path, required=True, help="data/splits.csv")
    parser.add_argument("--out", type=Path, required=True, help="measured.json")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    args = parser.parse_args()

    logging.info("measuring %s", args.checkpoint)

    from nuclei.devices import choose_device
    from nuclei.io.files import write_json
    from nuclei.reporting.comparison import measure_checkpoint

    device = choose_device(args.device)
    measured = measure_checkpoint(args.checkpoint, args.processed, args.splits, device)
    write_json(args.out, measured)
    print(f"{measured['experiment']}: score {measured['score']:.4f}, Dice {measured['dice']:.4f}")


if __name__ == "__main__":
    raise SystemExit(run(main))
