"""Tunes ensemble weights on out-of-fold maps: runs/ensemble/ensemble_weights.json."""

import argparse
import os
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--inputs", type=Path, nargs="+", required=True, help="runs/<member>/oof.npz of each member"
    )
    parser.add_argument("--processed", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--splits", type=Path, required=True, help="data/splits.csv")
    parser.add_argument("--out", type=Path, required=True, help="ensemble_weights.json")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)"
    )
    args = parser.parse_args()

    from nuclei.evaluation.ensemble_weights import tune_weights
    from nuclei.io.files import write_json

    members = {path.absolute().parent.name: path for path in args.inputs}
    found = tune_weights(members, args.processed, args.splits, args.workers)
    write_json(args.out, found.model_dump(mode="json"))
    for modality, weights in found.weights.items():
        print(f"{modality}: " + ", ".join(f"{name} {weight:g}" for name, weight in weights.items()))
    print(f"score of {found.n_images} images: {found.score:.4f}, with equal weights {found.score_equal:.4f}")


if __name__ == "__main__":
    raise SystemExit(run(main))
