"""Scores of label maps against the annotation, image by image and in summary: what stands in `cv.json`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from nuclei.arrays import LabelMap
from nuclei.data.intensity import to_display
from nuclei.data.prepared_images import Images
from nuclei.evaluation.metric import THRESHOLDS, average_precision, error_counts, outcomes
from nuclei.io.parallel import open_pool
from nuclei.io.tables import read_splits
from nuclei.postprocessing.otsu import otsu_watershed

Record = dict[str, Any]
"""An image's scores: ap (10 values at THRESHOLDS), nuclei annotated and predicted, errors at an IoU of 0.5; `sizes` has
for each of SIZES the nuclei annotated and those of them found at each of FOUND."""


SIZES = {"under 64": 0, "64 to 255": 64, "256 to 1023": 256, "1024 to 4095": 1024, "4096 and more": 4096}
"""Classes of annotated nuclei by area, each with its smallest area in pixels."""


FOUND = (0.5, 0.75, 0.9)
"""IoU above which an annotated nucleus counts as found, in the counts by size."""


_COUNTS = ("nuclei", "predicted", "hits", "missed", "extra", "split", "merged")


_DECIMALS = 6


def score_image(truth: LabelMap, predicted: LabelMap) -> Record:
    """The record of an image."""
    errors = error_counts(truth, predicted)
    return {
        "ap": [round(float(value), _DECIMALS) for value in average_precision(truth, predicted)],
        "nuclei": errors["hits"] + errors["missed"],
        "predicted": errors["hits"] + errors["extra"],
        "sizes": _found_by_size(truth, predicted),
        **errors,
    }


def _found_by_size(truth: LabelMap, predicted: LabelMap) -> list[list[int]]:
    found = outcomes(truth, predicted)
    classes = np.searchsorted(list(SIZES.values()), found.true_areas, side="right") - 1
    kept = [np.ones(len(classes), bool), *(found.true_iou > threshold for threshold in FOUND)]
    return [list(counts) for counts in zip(*(_count(classes[which]) for which in kept), strict=True)]


def _count(classes: npt.NDArray[np.int64]) -> list[int]:
    return [int(count) for count in np.bincount(classes, minlength=len(SIZES))]


def summarise(
    experiment: str, table: pd.DataFrame, records: Sequence[Record], parameters: Mapping[int, dict[str, Any] | None]
) -> dict[str, Any]:
    """The scores of an experiment: mean over images, by threshold, modality and fold, and every image's record.

    `table` has image_id, fold and modality, one row a record; `parameters` are those of the post-processing by fold.
    """
    folds, modalities = table.fold.to_numpy(int), table.modality.to_numpy(str)

    def mean_where(chosen: npt.NDArray[np.bool_]) -> dict[str, Any]:
        return _mean([records[row] for row in np.flatnonzero(chosen).tolist()])

    overall = _mean(records)
    return {
        "experiment": experiment,
        "n_images": overall.pop("images"),
        **overall,
        "modality": {modality: mean_where(modalities == modality) for modality in sorted(set(modalities.tolist()))},
        "fold": {str(fold): {**mean_where(folds == fold), "parameters": parameters[fold]} for fold in parameters},
        "image": {
            image_id: {**record, "fold": int(fold), "modality": str(modality)}
            for image_id, record, fold, modality in zip(table.image_id, records, folds, modalities, strict=True)
        },
    }


def _mean(records: Sequence[Record]) -> dict[str, Any]:
    ap = np.array([record["ap"] for record in records], np.float64).reshape(len(records), len(THRESHOLDS))
    return {
        "images": len(records),
        "score": round(float(ap.mean()), _DECIMALS),
        "ap": {
            f"{threshold:.2f}": round(float(value), _DECIMALS)
            for threshold, value in zip(THRESHOLDS, ap.mean(axis=0), strict=True)
        },
        "errors": {name: sum(record[name] for record in records) for name in _COUNTS},
        "sizes": np.sum([record["sizes"] for record in records], axis=0, dtype=int).tolist(),
    }


class _OtsuScorer:
    """Records of training images segmented by Otsu's threshold; opened once in each worker."""

    def __init__(self, processed: Path) -> None:
        self.images = Images(processed)

    def __call__(self, image_id: str) -> Record:
        return score_image(self.images.label_map(image_id), otsu_watershed(to_display(self.images.image(image_id))))


class _OtsuSegmenter:
    """Label maps of images by Otsu's threshold; opened once in each worker."""

    def __init__(self, processed: Path) -> None:
        self.images = Images(processed)

    def __call__(self, image_id: str) -> LabelMap:
        return otsu_watershed(to_display(self.images.image(image_id)))


def score_otsu(experiment: str, processed: Path, splits: Path, workers: int = 1) -> dict[str, Any]:
    """The `cv.json` of the classical baseline on the images of the splits; it has nothing to tune.

    Raises:
        UserError: files that are missing or do not fit each other.
    """
    table = read_splits(splits).sort_values("image_id")
    with open_pool(workers, _OtsuScorer, processed) as run:
        records = list(tqdm(run(table.image_id), total=len(table), desc="otsu", unit="image", mininterval=1))
    summary = summarise(experiment, table, records, {fold: None for fold in sorted(set(table.fold.tolist()))})
    return {**summary, "parameters": None, "score_default_parameters": None, "score_fitted": None}


def segment_otsu(processed: Path, image_ids: Sequence[str], workers: int = 1) -> Iterator[tuple[str, LabelMap]]:
    """Image ids in their order, each with the classical baseline's label map."""
    with open_pool(workers, _OtsuSegmenter, processed) as run:
        label_maps = run(image_ids)
        yield from zip(
            image_ids, tqdm(label_maps, total=len(image_ids), desc="otsu", unit="image", mininterval=1), strict=True
        )


def score_table(summary: Mapping[str, Any]) -> str:
    """A table for people: score and AP at each threshold of every modality and of all images, then the errors."""
    parts = {**summary["modality"], "all": {**summary, "images": summary["n_images"]}}
    lines = [f"{'':20} images  score  AP " + "  ".join(summary["ap"])]
    for name, part in parts.items():
        ap = " ".join(f"{value:5.3f}" for value in part["ap"].values())
        lines.append(f"{name:20} {part['images']:6}  {part['score']:5.3f}    {ap}")
    errors = ", ".join(f"{count} {name}" for name, count in summary["errors"].items())
    return "\n".join([*lines, f"{errors} (IoU > 0.5)"])
