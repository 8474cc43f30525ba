"""Scores a submission against a solution with the competition's metric."""

import argparse
import logging
import textwrap
from pathlib import Path

from nuclei.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submission", type=Path, required=True, help="ImageId, EncodedPixels")
    parser.add_argument(
        "--truth", type=Path, required=True, help="CSV: ImageId, EncodedPixels, Height, Width[, Usage]"
    )
    parser.add_argument("--usage", help="score only rows of the truth with this Usage: Private")
    parser.add_argument("--out", type=Path, required=True, help="CSV: scores of each image")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()

    import numpy as np

    from nuclei.evaluation.metric import THRESHOLDS
    from nuclei.evaluation.submission_score import score_submission, write_scores
    from nuclei.reporting.reference_scores import describe_references
    from nuclei.submission.solution import read_solution

    scores = score_submission(args.submission, read_solution(args.truth, args.usage))
    write_scores(args.out, scores)
    means = np.mean(list(scores.values()), axis=0)
    for threshold, mean in zip(THRESHOLDS, means, strict=True):
        print(f"IoU > {threshold:.2f}  {mean:.10f}")
    print(f"mean of {len(scores)} images  {means.mean():.10f}", flush=True)
    logging.info("\n".join(textwrap.fill(line, 80) for line in describe_references()))


if __name__ == "__main__":
    raise SystemExit(run(main))
