"""Tunes the post-processing on out-of-fold maps, scores every fold with what the other folds chose, writes cv.json."""

import argparse
import os
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=Path, required=True, help="out-of-fold maps of all folds, oof.npz")
    parser.add_argument("--processed", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--splits", type=Path, required=True, help="data/splits.csv")
    parser.add_argument("--out", type=Path, required=True, help="runs/<experiment>/cv.json")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    arguments = parser.parse_args()

    from nuclei.evaluation.scores import score_table
    from nuclei.evaluation.tuning import cross_validate
    from nuclei.io.files import write_json

    experiment = arguments.out.absolute().parent.name
    summary = cross_validate(experiment, arguments.maps, arguments.processed, arguments.splits, arguments.workers)
    write_json(arguments.out, summary)
    print(score_table(summary))
    print(
        f"default parameters {summary['score_default_parameters']:.4f}, fitted (flatters) {summary['score_fitted']:.4f}"
    )
    print(f"{experiment}: score {summary['score']:.4f}")


if __name__ == "__main__":
    raise SystemExit(run(main))
