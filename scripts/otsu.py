"""Scores the classical baseline (Otsu's threshold and a watershed) and writes its submission."""

import argparse
import os
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processed", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--splits", type=Path, required=True, help="data/splits.csv")
    parser.add_argument("--cv", type=Path, required=True, help="scores to write, runs/otsu/cv.json")
    parser.add_argument("--submission", type=Path, required=True, help="submission to write, .csv")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (all cores)")
    args = parser.parse_args()

    from nuclei.evaluation.scores import format_scores_table, score_otsu, segment_otsu
    from nuclei.io.files import atomic_path, write_json
    from nuclei.submission.submission import read_sizes, validate, write_submission

    experiment = args.cv.absolute().parent.name
    scores = score_otsu(experiment, args.processed, args.splits, args.workers)
    sizes = read_sizes(args.processed / "index.csv")
    with atomic_path(args.submission) as checked:  # named only once the competition would accept it
        write_submission(checked, segment_otsu(args.processed, list(sizes), args.workers))
        nuclei = validate(checked, sizes)
    write_json(args.cv, scores.to_dict())
    print(format_scores_table(scores))
    print(f"{args.submission}: {nuclei} nuclei in {len(sizes)} images, valid")
    print(f"{experiment}: score {scores.score:.4f}")


if __name__ == "__main__":
    raise SystemExit(run(main))
