"""Finds how much each member counts in the ensemble's mean, on out-of-fold maps: runs/ensemble/shares.json."""

import argparse
import os
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=Path, nargs="+", required=True, help="runs/<member>/oof.npz of each member")
    parser.add_argument("--processed", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--splits", type=Path, required=True, help="data/splits.csv")
    parser.add_argument("--out", type=Path, required=True, help="shares.json")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    arguments = parser.parse_args()

    from nuclei.evaluation.ensemble_weights import find_shares
    from nuclei.io.files import write_json

    members = {path.absolute().parent.name: path for path in arguments.inputs}
    found = find_shares(members, arguments.processed, arguments.splits, arguments.workers)
    write_json(arguments.out, found)
    for modality, shares in found["shares"].items():
        print(f"{modality}: " + ", ".join(f"{name} {share:g}" for name, share in shares.items()))
    print(f"score of {found['n_images']} images: {found['score']:.4f}, with equal shares {found['score_alike']:.4f}")


if __name__ == "__main__":
    raise SystemExit(run(main))
