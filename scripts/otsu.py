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
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    arguments = parser.parse_args()

    from nuclei.evaluation.scores import format_scores_table, score_otsu, segment_otsu
    from nuclei.io.files import atomic_path, write_json
    from nuclei.submission.submission import read_sizes, validate, write_submission

    experiment = arguments.cv.absolute().parent.name
    scores = score_otsu(experiment, arguments.processed, arguments.splits, arguments.workers)
    sizes = read_sizes(arguments.processed / "index.csv")
    with atomic_path(arguments.submission) as checked:  # named only once the competition would accept it
        write_submission(checked, segment_otsu(arguments.processed, list(sizes), arguments.workers))
        nuclei = validate(checked, sizes)
    write_json(arguments.cv, scores.to_dict())
    print(format_scores_table(scores))
    print(f"{arguments.submission}: {nuclei} nuclei in {len(sizes)} images, valid")
    print(f"{experiment}: score {scores.score:.4f}")


if __name__ == "__main__":
    raise SystemExit(run(main))
