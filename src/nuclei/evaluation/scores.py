"""Scores of label maps against the annotation: of images, of groups of images, of an experiment.

`CrossValidation` is the content of `runs/<experiment>/cv.json`.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field

from nuclei.arrays import BoolArray, Int64Array, LabelMap
from nuclei.data.intensity import to_display
from nuclei.data.prepared_images import Images
from nuclei.errors import UserError
from nuclei.evaluation.metric import THRESHOLDS, average_precision, error_counts, outcomes
from nuclei.io.names import Name, check_name
from nuclei.io.parallel import open_pool
from nuclei.io.records import Record, read_record
from nuclei.io.tables import read_splits
from nuclei.postprocessing.otsu import otsu_watershed
from nuclei.postprocessing.parameters import Tuned, TunedRecord
from nuclei.progress import name_job, show_progress

SIZES = {
    "under 64": 0,
    "64 to 255": 64,
    "256 to 1023": 256,
    "1024 to 4095": 1024,
    "4096 and more": 4096,
}
"""Classes of annotated nuclei by area, each with its smallest area in pixels."""
FOUND = (0.5, 0.75, 0.9)
"""IoU above which an annotated nucleus counts as found, in the counts by size."""
SHOWN_THRESHOLDS = ("0.50", "0.60", "0.70", "0.75", "0.80", "0.90", "0.95")
"""Thresholds of the text table; cv.json has all of them."""

_DECIMALS = 6

Count = Annotated[int, Field(ge=0)]
Score = Annotated[float, Field(ge=0, le=1)]
SizeCounts = Annotated[list[list[Count]], Field(min_length=len(SIZES), max_length=len(SIZES))]
"""For each of SIZES the number of annotated nuclei, and of those found at each of FOUND."""


class ErrorCounts(Record):
    """Numbers of nuclei at an IoU threshold of 0.5, see `metric.error_counts`."""

    nuclei: Count
    """Annotated ones."""
    predicted: Count
    hits: Count
    missed: Count
    extra: Count
    split: Count
    merged: Count


class ImageScores(ErrorCounts):
    """Scores of an image."""

    ap: Annotated[list[Score], Field(min_length=len(THRESHOLDS), max_length=len(THRESHOLDS))]
    """TP / (TP + FP + FN) at each of THRESHOLDS."""
    sizes: SizeCounts


class FoldImageScores(ImageScores):
    """Scores of an image that is held out by a fold."""

    fold: int
    modality: str


class GroupScores(Record):
    """Mean scores and summed counts of a group of images."""

    images: Count
    score: Score
    ap: dict[str, Score]
    """Mean TP / (TP + FP + FN) by threshold, with two decimals."""
    errors: ErrorCounts
    sizes: SizeCounts


class FoldScores(GroupScores):
    """Scores of a fold's images with `parameters` tuned without them; None if nothing was tuned."""

    parameters: TunedRecord | None


class ExperimentScores(Record):
    """Scores of an experiment, each image predicted by the fold that holds it out."""

    experiment: Name
    n_images: Count
    score: Score
    ap: dict[str, Score]
    errors: ErrorCounts
    sizes: SizeCounts
    modality: dict[str, GroupScores]
    fold: dict[str, FoldScores]
    image: dict[str, FoldImageScores]

    def to_dict(self) -> dict[str, Any]:
        """The values for JSON."""
        return self.model_dump(mode="json")


class CrossValidation(ExperimentScores):
    """The content of `cv.json`: out-of-fold scores, and the parameters for the test images.

    The last three fields are None for the classical baseline, which has nothing to tune.
    """

    parameters: TunedRecord | None
    score_default_parameters: Score | None
    """With the untuned parameters."""
    score_fitted: Score | None
    """With `parameters`, on the images that they were tuned on: too high, shown for comparison."""


class TunedScore(Record):
    """The part of `cv.json` that a submission and a card of weights need."""

    model_config = ConfigDict(extra="ignore")

    experiment: Name
    n_images: Count
    score: Score
    parameters: TunedRecord | None

    @property
    def tuned(self) -> Tuned:
        """The tuned parameters.

        Raises:
            UserError: nothing was tuned.
        """
        if self.parameters is None:
            raise UserError(
                f"cv.json of {self.experiment} holds no post-processing parameters; tune it with "
                "scripts/tune.py"
            )
        return self.parameters


def read_tuned_score(path: Path) -> TunedScore:
    """The tuned parameters and score of a `cv.json`.

    Raises:
        UserError: the file is missing or not a `cv.json`.
    """
    return read_record(path, TunedScore, "run the tuning, which writes it")


def score_image(truth: LabelMap, predicted: LabelMap) -> ImageScores:
    """Scores of the predicted label map of an image."""
    errors = error_counts(truth, predicted)
    return ImageScores(
        **errors,
        ap=[round(float(value), _DECIMALS) for value in average_precision(truth, predicted)],
        nuclei=errors["hits"] + errors["missed"],
        predicted=errors["hits"] + errors["extra"],
        sizes=_count_found_by_size(truth, predicted),
    )


def _count_found_by_size(truth: LabelMap, predicted: LabelMap) -> list[list[int]]:
    found = outcomes(truth, predicted)
    classes = np.searchsorted(list(SIZES.values()), found.true_areas, side="right") - 1
    columns = [_count_classes(classes)]
    columns += [_count_classes(classes[found.true_iou > threshold]) for threshold in FOUND]
    return [list(row) for row in zip(*columns, strict=True)]


def _count_classes(classes: Int64Array) -> list[int]:
    return [int(count) for count in np.bincount(classes, minlength=len(SIZES))]


def summarise_scores(
    experiment: str,
    table: pd.DataFrame,
    records: Sequence[ImageScores],
    parameters: Mapping[int, Tuned | None],
) -> ExperimentScores:
    """Scores of an experiment from those of its images.

    `table` has the columns image_id, fold and modality, one row a record; `parameters` are the
    post-processing's, by fold.
    """
    folds, modalities = table.fold.to_numpy(int), table.modality.to_numpy(str)

    def average_where(chosen: BoolArray) -> GroupScores:
        return average_scores([records[row] for row in np.flatnonzero(chosen).tolist()])

    overall = average_scores(records)
    by_fold = {}
    for fold, tuned in parameters.items():
        by_fold[str(fold)] = FoldScores(**dict(average_where(folds == fold)), parameters=tuned)
    images = {}
    for image_id, record, fold, modality in zip(table.image_id, records, folds, modalities, strict=True):
        images[image_id] = FoldImageScores(**dict(record), fold=int(fold), modality=str(modality))
    return ExperimentScores(
        experiment=experiment,
        n_images=overall.images,
        score=overall.score,
        ap=overall.ap,
        errors=overall.errors,
        sizes=overall.sizes,
        modality={name: average_where(modalities == name) for name in sorted(set(modalities.tolist()))},
        fold=by_fold,
        image=images,
    )


def average_scores(records: Sequence[ImageScores]) -> GroupScores:
    """Mean scores and summed counts of one or more images."""
    ap = np.array([record.ap for record in records], np.float64).reshape(len(records), len(THRESHOLDS))
    names = list(ErrorCounts.model_fields)
    return GroupScores(
        images=len(records),
        score=round(float(ap.mean()), _DECIMALS),
        ap={
            f"{threshold:.2f}": round(float(value), _DECIMALS)
            for threshold, value in zip(THRESHOLDS, ap.mean(axis=0), strict=True)
        },
        errors=ErrorCounts(**{name: sum(getattr(record, name) for record in records) for name in names}),
        sizes=np.sum([record.sizes for record in records], axis=0, dtype=int).tolist(),
    )


class _OtsuScorer:
    """Scores of training images segmented by Otsu's threshold; one is opened in each worker."""

    def __init__(self, processed: Path) -> None:
        self.images = Images(processed)

    def __call__(self, image_id: str) -> ImageScores:
        predicted = otsu_watershed(to_display(self.images.image(image_id)))
        return score_image(self.images.label_map(image_id), predicted)


class _OtsuSegmenter:
    """Label maps of images by Otsu's threshold; one is opened in each worker."""

    def __init__(self, processed: Path) -> None:
        self.images = Images(processed)

    def __call__(self, image_id: str) -> LabelMap:
        return otsu_watershed(to_display(self.images.image(image_id)))


def score_otsu(experiment: str, processed: Path, splits: Path, workers: int = 1) -> CrossValidation:
    """Scores of the classical baseline on the images of the splits; it has nothing to tune.

    Raises:
        UserError: an unsafe name of an experiment; files that are missing or do not fit each other.
    """
    check_name(experiment)
    table = read_splits(splits).sort_values("image_id")
    with open_pool(workers, _OtsuScorer, processed) as run:
        records = list(show_progress(run(table.image_id), name_job("score", experiment), "images", len(table)))
    untuned = dict.fromkeys(sorted(set(table.fold.tolist())))
    scores = summarise_scores(experiment, table, records, untuned)
    return CrossValidation(**dict(scores), parameters=None, score_default_parameters=None, score_fitted=None)


def segment_otsu(processed: Path, image_ids: Sequence[str], workers: int = 1) -> Iterator[tuple[str, LabelMap]]:
    """Image ids in their order, each with the classical baseline's label map."""
    with open_pool(workers, _OtsuSegmenter, processed) as run:
        label_maps = show_progress(run(image_ids), name_job("segment", "otsu"), "images", len(image_ids))
        yield from zip(image_ids, label_maps, strict=True)


def format_scores_table(scores: ExperimentScores) -> str:
    """Text table, 80 columns: score and AP by threshold for each modality and all, then errors."""
    lines = [f"{scores.experiment:20.20} images  score  AP " + "  ".join(SHOWN_THRESHOLDS)]
    for name, group in scores.modality.items():
        lines.append(_format_row(name, group.images, group.score, group.ap))
    lines.append(_format_row("all", scores.n_images, scores.score, scores.ap))
    errors = ", ".join(f"{count} {name}" for name, count in dict(scores.errors).items())
    return "\n".join([*lines, *textwrap.wrap(f"above an IoU of 0.5: {errors}", 80)])


def _format_row(name: str, images: int, score: float, ap: Mapping[str, float]) -> str:
    values = " ".join(f"{ap[threshold]:5.3f}" for threshold in SHOWN_THRESHOLDS)
    return f"{name:20} {images:6}  {score:5.3f}    {values}"
