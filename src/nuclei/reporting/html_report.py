"""The report as one HTML page: leaderboard, learning curves, partial scores, images with errors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nuclei.data.prepared_images import Images
from nuclei.evaluation.metric import THRESHOLDS
from nuclei.evaluation.scores import FOUND, SIZES
from nuclei.io.tables import read_table
from nuclei.provenance import code_commit
from nuclei.reporting.differences import known
from nuclei.reporting.gallery import choose_images, draw_pictures, open_predictions
from nuclei.reporting.leaderboard import ONLY_UNSEEN, format_count, resampled_units, scored_modalities
from nuclei.reporting.overlays import KIND_COLOURS
from nuclei.reporting.reference_scores import IMAGES, REFERENCES, UNKNOWN
from nuclei.reporting.rendering import render
from nuclei.reporting.score_records import RecordedGroup, ScoreRecord
from nuclei.reporting.unseen_scores import describe_expectation, format_gain, unseen_note, unseen_rows

THRESHOLD_NAMES = [f"{threshold:.2f}" for threshold in THRESHOLDS]
CURVES = ("step", "loss", "validation_score", "minutes")
"""Columns of log.csv that the page plots."""
COUNTS = ("predicted", "missed", "extra", "split", "merged")
"""Counts of an image's record that the page shows."""


def report_page(
    frame: pd.DataFrame,
    compared: Sequence[ScoreRecord],
    runs: Path,
    processed: Path,
    count: int,
    megabytes: float,
) -> str:
    """The page in HTML.

    `frame` is the leaderboard; `compared` are the experiments scored on the same images, best
    first. Images are shown where `processed` has them and `runs` has the maps: `count` of the worst
    and of the best of each experiment, as far as they fit into `megabytes`.
    """
    data = {
        "thresholds": list(THRESHOLDS),
        "sizes": list(SIZES),
        "found": list(FOUND),
        "experiments": [_scores_in_parts(record) for record in compared],
        **_scores_by_image(compared),
        "curves": read_curves(runs),
        "pictures": _draw_images(compared, runs, processed, count, int(megabytes * 1e6)),
        "colours": KIND_COLOURS,
    }
    return render(
        "report.html",
        "report.js",
        data,
        rows=[_without_nan(row) for row in frame[frame.verdict != ONLY_UNSEEN].to_dict("records")],
        unseen=[_without_nan(row) for row in unseen_rows(frame)],
        note=unseen_note(unseen_rows(frame)),
        modalities=scored_modalities(compared),
        folds=_fold_table(compared),
        images=compared[0].n_images if compared else 0,
        resampled=resampled_units(frame),
        commit=code_commit(),
        format_count=format_count,
        format_gain=format_gain,
        describe_expectation=describe_expectation,
        references=REFERENCES,
        reference_note=(IMAGES, UNKNOWN),
    )


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value if known(value) else None for key, value in row.items()}


def _draw_images(
    compared: Sequence[ScoreRecord], runs: Path, processed: Path, count: int, size: int
) -> dict[str, dict[str, Any]]:
    """Pictures by image id, of `size` bytes at most; none without prepared images."""
    if not (processed / "index.csv").is_file():
        return {}
    images = Images(processed)
    opened = {record.experiment: open_predictions(runs, record, images) for record in compared}
    segmenters = {name: segmenter for name, segmenter in opened.items() if segmenter}
    shown = [record for record in compared if record.experiment in segmenters]
    return draw_pictures(images, choose_images(shown, count), segmenters, size)


def read_curves(runs: Path) -> list[dict[str, Any]]:
    """Learning curves of all folds in a folder of runs, unfinished or not, for each of CURVES."""
    curves = []
    for path in sorted(runs.glob("*/fold_*/log.csv")):
        log = read_table(path, CURVES, "train again")
        fold = path.parent.name.removeprefix("fold_")
        experiment = path.relative_to(runs).parts[0]
        values = {name: [_shorten(value) for value in log[name]] for name in CURVES}
        curves.append({"experiment": experiment, "fold": fold, **values})
    return curves


def _shorten(value: Any) -> float | None:
    """A number with five digits, None for NaN."""
    return float(f"{value:.5g}") if known(float(value)) else None


def _scores_in_parts(record: ScoreRecord) -> dict[str, Any]:
    """Scores of an experiment by threshold and nucleus size: all images (""), each modality."""
    whole = RecordedGroup(images=record.n_images, score=record.score, ap=record.ap, sizes=record.sizes)
    parts = {"": whole, **record.modality}
    return {
        "name": record.experiment,
        "parts": {name: _scores_of_part(part) for name, part in parts.items()},
    }


def _scores_of_part(part: RecordedGroup) -> dict[str, Any]:
    return {
        "images": part.images,
        "score": part.score,
        "ap": [part.ap.get(threshold) for threshold in THRESHOLD_NAMES],
        "sizes": part.sizes,
    }


def _scores_by_image(compared: Sequence[ScoreRecord]) -> dict[str, Any]:
    """`images` of the experiments, and `results`: scores and counts of each, in their order."""
    with_images = [record for record in compared if record.image]
    if not with_images:
        return {"images": [], "results": {}}
    first = with_images[0].image
    results = {}
    for record in with_images:
        scores = record.image_scores()
        result: dict[str, Any] = {"score": [round(scores[image_id], 4) for image_id in first]}
        for name in COUNTS:
            result[name] = [getattr(record.image[image_id], name) for image_id in first]
        results[record.experiment] = result
    images = [
        {"id": image_id, "modality": image.modality, "fold": image.fold, "nuclei": image.nuclei}
        for image_id, image in first.items()
    ]
    return {"images": images, "results": results}


def _fold_table(compared: Sequence[ScoreRecord]) -> dict[str, Any]:
    """Scores by fold: `names` of the folds, and `rows` with each experiment and its scores."""
    names = sorted({fold for record in compared for fold in record.fold}, key=int)
    rows = []
    for record in compared:
        if record.fold:
            scores = [record.fold[fold].score if fold in record.fold else None for fold in names]
            rows.append({"experiment": record.experiment, "scores": scores})
    return {"names": names, "rows": rows}
