"""Scores a submission against a solution with the competition's metric."""

import argparse
import logging
import textwrap
from pathlib import Path

from nuclei.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submission", type=Path, required=True, help="CSV: ImageId, EncodedPixels")
    parser.add_argument(
        "--truth", type=Path, required=True, help="CSV: ImageId, EncodedPixels, Height, Width, optionally Usage"
    )
    parser.add_argument("--usage", help="score only the rows of the truth with this Usage, such as Private")
    parser.add_argument("--out", type=Path, required=True, help="CSV to write: one row of scores an image")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()

    import numpy as np

    from nuclei.evaluation.metric import THRESHOLDS
    from nuclei.evaluation.submission_score import score_submission, write_scores
    from nuclei.reporting.reference_scores import describe_references
    from nuclei.submission.solution import read_solution

    scores = score_submission(arguments.submission, read_solution(arguments.truth, arguments.usage))
    write_scores(arguments.out, scores)
    means = np.mean(list(scores.values()), axis=0)
    for threshold, mean in zip(THRESHOLDS, means, strict=True):
        print(f"IoU > {threshold:.2f}  {mean:.10f}")
    print(f"mean of {len(scores)} images  {means.mean():.10f}", flush=True)
    logging.info("\n".join(textwrap.fill(line, 80) for line in describe_references()))


if __name__ == "__main__":
    raise SystemExit(run(main))
