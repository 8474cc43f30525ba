"""The report: one page with the leaderboard, curves, scores in parts, and images with every experiment's errors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nuclei.data.prepared_images import Images
from nuclei.evaluation.metric import THRESHOLDS
from nuclei.evaluation.scores import FOUND, SIZES
from nuclei.io.tables import read_table
from nuclei.provenance import code_commit
from nuclei.reporting.gallery import choose_images, draw_pictures, open_predictions
from nuclei.reporting.leaderboard import find_modalities, format_count, known
from nuclei.reporting.overlays import COLOURS
from nuclei.reporting.rendering import render
from nuclei.reporting.score_records import Summary, image_scores

THRESHOLD_NAMES = [f"{threshold:.2f}" for threshold in THRESHOLDS]


def report_page(
    frame: pd.DataFrame, compared: Sequence[Summary], runs: Path, processed: Path, count: int, megabytes: float
) -> str:
    """The page in HTML.

    `frame` is the leaderboard and `compared` the experiments scored on the same images, best first. Images are shown
    where `processed` has them and `runs` the maps: `count` of the worst and of the best of each experiment, as far as
    `megabytes` go.
    """
    pictures: dict[str, Any] = {}
    if (processed / "index.csv").is_file():
        images = Images(processed)
        opened = {summary["experiment"]: open_predictions(runs, summary, images) for summary in compared}
        segments = {name: segment for name, segment in opened.items() if segment}
        shown = [summary for summary in compared if summary["experiment"] in segments]
        pictures = draw_pictures(images, choose_images(shown, count), segments, int(megabytes * 1e6))
    data = {
        "thresholds": list(THRESHOLDS),
        "sizes": list(SIZES),
        "found": list(FOUND),
        "experiments": [_scores_in_parts(summary) for summary in compared],
        **_by_image(compared),
        "curves": read_curves(runs),
        "pictures": pictures,
        "colours": COLOURS,
    }
    return render(
        "report.html",
        "report.js",
        data,
        rows=[{key: value if known(value) else None for key, value in row.items()} for row in frame.to_dict("records")],
        modalities=find_modalities(compared),
        folds=_fold_table(compared),
        images=compared[0]["n_images"],
        commit=code_commit(),
        format_count=format_count,
    )


def read_curves(runs: Path) -> list[dict[str, Any]]:
    """Learning curves of all folds in a folder of runs, also of those in training: lists of step, loss and so on."""
    curves = []
    for path in sorted(runs.glob("*/fold_*/log.csv")):
        log = read_table(path, ("step", "loss", "validation_score", "minutes"), "train again")
        values = {name: _numbers(log[name]) for name in ("step", "loss", "validation_score", "minutes")}
        curves.append({"experiment": path.parents[1].name, "fold": path.parent.name.removeprefix("fold_"), **values})
    return curves


def _numbers(column: Any) -> list[float | None]:
    return [float(f"{value:.5g}") if known(float(value)) else None for value in column]


def _scores_in_parts(summary: Summary) -> dict[str, Any]:
    """An experiment's scores by threshold and size of nuclei, of all images and of those of each modality."""
    parts = {"": {**summary, "images": summary["n_images"]}, **summary["modality"]}
    return {
        "name": summary["experiment"],
        "parts": {
            name: {
                "images": part["images"],
                "score": part["score"],
                "ap": [part.get("ap", {}).get(threshold) for threshold in THRESHOLD_NAMES],
                "sizes": part.get("sizes"),
            }
            for name, part in parts.items()
        },
    }


def _by_image(compared: Sequence[Summary]) -> dict[str, Any]:
    """The images of the experiments, and each experiment's score and counts in the order of these images."""
    with_images = [summary for summary in compared if summary["image"]]
    if not with_images:
        return {"images": [], "results": {}}
    records = with_images[0]["image"]
    results = {}
    for summary in with_images:
        scores = image_scores(summary)
        results[summary["experiment"]] = {
            "score": [round(scores[image_id], 4) for image_id in records],
            **{
                name: [summary["image"][image_id][name] for image_id in records]
                for name in ("predicted", "missed", "extra", "split", "merged")
            },
        }
    fields = ("modality", "fold", "nuclei")
    images = [{"id": key, **{name: record[name] for name in fields}} for key, record in records.items()]
    return {"images": images, "results": results}


def _fold_table(compared: Sequence[Summary]) -> dict[str, Any]:
    """Scores of the folds by experiment: `names` of the folds, and `rows` with the experiment and its scores."""
    names = sorted({fold for summary in compared for fold in summary["fold"]}, key=int)
    rows = [
        {"experiment": summary["experiment"], "scores": [summary["fold"].get(fold, {}).get("score") for fold in names]}
        for summary in compared
        if summary["fold"]
    ]
    return {"names": names, "rows": rows}
