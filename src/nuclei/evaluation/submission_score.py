"""Scores a submission against a solution, image by image."""

from collections.abc import Mapping
from pathlib import Path

from nuclei.arrays import Float64Array
from nuclei.errors import UserError
from nuclei.evaluation import metric
from nuclei.io.files import write_text
from nuclei.submission import rle
from nuclei.submission.solution import Solution
from nuclei.submission.submission import read_submission, validate


def score_submission(path: Path | str, solution: Solution) -> dict[str, Float64Array]:
    """TP / (TP + FP + FN) (10,) at metric.THRESHOLDS by image id, sorted, of the solution's images.

    Raises:
        UserError: a submission that `validate` refuses; a solution with faulty runs.
    """
    validate(path, solution.sizes, others=solution.others)
    predicted = read_submission(path)
    scores = {}
    for image_id in sorted(solution.sizes):
        height, width = solution.sizes[image_id]
        try:
            true_runs = rle.parse_rows(solution.runs[image_id])
        except ValueError as error:
            raise UserError(f"the solution of image {image_id}: {error}") from error
        if (true_runs[0] + true_runs[1] - 1 > height * width).any():
            raise UserError(
                f"the solution of image {image_id}: a run leaves the image of {height} x {width} pixels"
            )
        scores[image_id] = metric.average_precision_from_runs(true_runs, rle.parse_rows(predicted[image_id]))
    return scores


def write_scores(path: Path | str, scores: Mapping[str, Float64Array]) -> None:
    """Writes scores as CSV with ten decimals: ImageId, ap_0.50 to ap_0.95 and their mean."""
    lines = [",".join(["ImageId", *(f"ap_{threshold:.2f}" for threshold in metric.THRESHOLDS), "mean"])]
    for image_id, values in scores.items():
        lines.append(",".join([image_id, *(f"{value:.10f}" for value in [*values, values.mean()])]))
    write_text(path, "\n".join(lines) + "\n")
