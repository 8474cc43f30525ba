"""Scores a fold's held-out maps with the default post-processing: scores.json, with effort."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=Path, required=True, help="held-out maps, oof.npz")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="model.pt that predicted them, log.csv beside it"
    )
    parser.add_argument("--processed", type=Path, required=True, help="folder with index.csv")
    parser.add_argument(
        "--splits", type=Path, required=True, help="the table of folds that it was trained with"
    )
    parser.add_argument("--out", type=Path, required=True, help="<experiment>/fold_<k>/scores.json")
    args = parser.parse_args()

    from nuclei.io.files import write_json
    from nuclei.reporting.ablation import score_fold

    experiment = args.out.absolute().parents[1].name
    scores = score_fold(experiment, args.maps, args.checkpoint, args.processed, args.splits)
    write_json(args.out, scores)
    print(f"{experiment}: score {scores['score']:.4f} on {scores['n_images']} images")


if __name__ == "__main__":
    raise SystemExit(run(main))
