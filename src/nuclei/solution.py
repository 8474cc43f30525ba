"""A solution, what a submission is scored against: the annotated nuclei of images as run lengths."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nuclei import metric, rle
from nuclei.artifacts import write_text
from nuclei.submission import HEADER, parse_size, read_columns, read_submission, validate

SOLUTION_COLUMNS = (*HEADER, "Height", "Width")


class Solution(NamedTuple):
    """The runs of the annotated nuclei by image id (none: an empty list), and the images' sizes; images not scored."""

    runs: dict[str, list[str]]
    sizes: dict[str, tuple[int, int]]
    others: frozenset[str] = frozenset()


def read_solution(path: Path | str, usage: str | None = None) -> Solution:
    """Annotated nuclei of a solution CSV: ImageId, EncodedPixels, Height, Width and perhaps Usage.

    Where there is a Usage, the rows marked `Ignored` are left out (the competition did not score them); with `usage`
    only the rows marked so remain, for example `Private` for stage 2.

    Raises:
        ValueError: the table is missing, lacks columns or names two sizes of an image; no row is left; runs that are
            faulty or leave their image.
    """
    table = read_columns(path, SOLUTION_COLUMNS)
    usages = sorted({row["Usage"] for _, row in table if "Usage" in row} - {"Ignored"})
    if usage is not None and usage not in usages:
        raise ValueError(f"{path}: no row to score has the Usage {usage!r}; choose one of {usages or 'none'}")
    solution = Solution({}, {})
    others = set()
    for line, row in table:
        if row.get("Usage") == "Ignored" or (usage is not None and row["Usage"] != usage):
            others.add(row["ImageId"])
            continue
        image_id, size = row["ImageId"], parse_size(path, line, row["Height"], row["Width"])
        if solution.sizes.setdefault(image_id, size) != size:
            sizes = f"{solution.sizes[image_id]} and {size}"
            raise ValueError(f"{path}, line {line}: image {image_id} has two sizes, {sizes}; remove the wrong one")
        nuclei = solution.runs.setdefault(image_id, [])
        if row["EncodedPixels"].strip():
            nuclei.append(row["EncodedPixels"])
    if not solution.sizes:
        raise ValueError(f"{path}: no image to score; every row is marked as Ignored or there is none")
    return solution._replace(others=frozenset(others))


def score_submission(path: Path | str, solution: Solution) -> dict[str, npt.NDArray[np.float64]]:
    """TP / (TP + FP + FN) (10,) at each of metric.THRESHOLDS by image id, for each image of the solution, sorted.

    Raises:
        ValueError: a submission that `validate` refuses; a solution with faulty runs.
    """
    validate(path, solution.sizes, others=solution.others)
    predicted = read_submission(path)
    scores = {}
    for image_id in sorted(solution.sizes):
        height, width = solution.sizes[image_id]
        try:
            true_runs = rle.parse_rows(solution.runs[image_id])
        except ValueError as error:
            raise ValueError(f"the solution of image {image_id}: {error}") from error
        if (true_runs[0] + true_runs[1] - 1 > height * width).any():
            raise ValueError(f"the solution of image {image_id}: a run leaves the image of {height} x {width} pixels")
        scores[image_id] = metric.average_precision_from_runs(true_runs, rle.parse_rows(predicted[image_id]))
    return scores


def write_scores(path: Path | str, scores: Mapping[str, npt.NDArray[np.float64]]) -> None:
    """Writes the scores of images as CSV: ImageId, ap_0.50 ... ap_0.95 and their mean, with ten decimals."""
    lines = [",".join(["ImageId", *(f"ap_{threshold:.2f}" for threshold in metric.THRESHOLDS), "mean"])]
    for image_id, values in scores.items():
        lines.append(",".join([image_id, *(f"{value:.10f}" for value in [*values, values.mean()])]))
    write_text(path, "\n".join(lines) + "\n")
