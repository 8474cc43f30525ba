"""Tunes post-processing on out-of-fold maps, scores each fold with the others'; cv.json."""

import argparse
import os
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=Path, required=True, help="out-of-fold maps, oof.npz")
    parser.add_argument("--processed", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--splits", type=Path, required=True, help="data/splits.csv")
    parser.add_argument("--out", type=Path, required=True, help="runs/<experiment>/cv.json")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (all cores)")
    args = parser.parse_args()

    from nuclei.evaluation.scores import format_scores_table
    from nuclei.evaluation.tuning import cross_validate
    from nuclei.io.files import write_json

    experiment = args.out.absolute().parent.name
    scores = cross_validate(experiment, args.maps, args.processed, args.splits, args.workers)
    write_json(args.out, scores.to_dict())
    print(format_scores_table(scores))
    print(
        f"default parameters {scores.score_default_parameters:.4f}, "
        f"tuned on the scored images too {scores.score_fitted:.4f}"
    )
    print(f"{experiment}: score {scores.score:.4f}")


if __name__ == "__main__":
    raise SystemExit(run(main))
