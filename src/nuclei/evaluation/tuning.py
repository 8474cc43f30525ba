"""Post-processing tuned on out-of-fold maps.

Each fold is scored with parameters that were searched on the images of the other folds. The
parameters for the test images are searched on all. The search climbs along one parameter at a time
over a coarse grid, then tries half steps of those that matter most. It keeps a step only if the gain
is clear against its error over the sources of the images. From there it goes on for each modality
that has enough images and is at most half of them.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from nuclei.arrays import LabelMap
from nuclei.data.prepared_images import Images
from nuclei.errors import UserError
from nuclei.evaluation.score_cache import CACHED_IMAGES, Candidate, MapScorer, Rows, Scores
from nuclei.evaluation.scores import summarise
from nuclei.io.files import read_json
from nuclei.io.parallel import open_pool
from nuclei.io.probability_maps import Maps
from nuclei.io.tables import SOURCE, read_splits
from nuclei.postprocessing.parameters import Parameters, Tuned
from nuclei.postprocessing.watershed import segment_maps

log = logging.getLogger(__name__)

GRID: dict[str, tuple[float, ...]] = {
    "foreground_threshold": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    "instance_threshold": (0.0, 0.5, 0.55, 0.6, 0.65, 0.7),
    "seed_threshold": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
    "border_weight": (0.0, 0.5, 1.0, 2.0),
    "split_levels": (0, 1, 2, 4),
    "min_split_fraction": (0.1, 0.2, 0.3),
    "min_relative_area": (0.0, 0.05, 0.1, 0.15, 0.2, 0.3),
    "min_mean_probability": (0.0, 0.75, 0.8, 0.875, 0.95),
    "min_area": (10, 20, 30, 40),
    "min_seed_peak": (0.0, 0.1, 0.2, 0.3, 0.4),
    "min_seed_area": (5, 10, 20, 40),
}
"""Values tried, in the order in which the parameters are searched: those that move the score most come first."""

HALF_STEPS: dict[str, float] = {
    "foreground_threshold": 0.05,
    "instance_threshold": 0.025,
    "seed_threshold": 0.05,
    "min_relative_area": 0.025,
    "min_mean_probability": 0.025,
}
"""How far beside the best of these parameters is tried at last."""
COARSE_IMAGES = CACHED_IMAGES
"""Images that the coarse search sees, where there are more; half steps are tried on all."""
FINE_FROM = 100
"""Fewer images cannot tell half steps apart and are spared them."""
START = Parameters(foreground_threshold=0.5)
"""Where the search begins: a pixel belongs to a nucleus from a probability of one half on.

A parameter leaves it only on a gain that holds over sources: thresholds that suit the sources of
the training images cost several times their gain on other sources.
"""
PASSES = 2
"""At most so many rounds of the coarse search over all parameters."""
OWN_FROM = 10
"""Fewer images of a modality get the general parameters."""
OWN_GRID: dict[str, tuple[float, ...]] = {
    "foreground_threshold": (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75),
    "instance_threshold": (0.0, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7),
    "seed_threshold": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6),
    "border_weight": (0.0, 0.5, 1.0, 2.0),
    "min_relative_area": (0.0, 0.05, 0.1, 0.15, 0.2, 0.3),
    "min_mean_probability": (0.0, 0.6, 0.7, 0.8, 0.9),
}
"""Values tried for a modality."""
CAUTION = 1.0
"""A step must gain more than this many standard errors of its mean gain, clustered by source."""


def cross_validate(experiment: str, maps: Path, processed: Path, splits: Path, workers: int = 1) -> dict[str, Any]:
    """What `cv.json` holds of out-of-fold maps: honest scores, and parameters for the test images.

    `score` is the mean over the images, each segmented with its own fold's parameters, searched without that fold.
    `score_default_parameters` is that of the untuned ones, and `score_fitted` that of the final `parameters` on the
    images that they were searched on: it flatters, and is there to show by how much. See `scoring.summarise`.
    The result does not depend on the number of workers.

    Raises:
        UserError: fewer than two folds; maps that do not hold exactly the images of the splits, or of another size;
            files that are missing or do not fit each other.
    """
    table = read_splits(splits).sort_values("image_id").reset_index(drop=True)
    _check_images(maps, splits, table)
    folds = sorted({int(fold) for fold in table.fold})
    everything, sample = np.arange(len(table)), _stratified_sample(table)
    with open_pool(workers, MapScorer, maps, processed) as run:
        bar = tqdm(desc="tuning", unit=" segmentations", mininterval=1)
        scores: Scores[Parameters] = Scores(list(table.image_id), run, bar.update, _find_sources(processed, table))
        final = search_all(scores, everything, sample, table.modality)
        log.info("all folds: %s", _describe(final))
        chosen = {}
        for fold in folds:
            others = np.flatnonzero(table.fold != fold)
            chosen[fold] = search_all(scores, others, sample, table.modality)
            log.info("without fold %d: %s", fold, _describe(chosen[fold]))
        scores.fill([Parameters()], everything)
        fitted = np.zeros(len(table))
        for modality in table.modality.unique():
            of_modality = np.flatnonzero(table.modality == modality)
            scores.fill([final.of(modality)], of_modality)
            fitted[of_modality] = scores.by_image(final.of(modality), of_modality)
        bar.close()
        jobs = [(row.image_id, chosen[int(row.fold)].of(row.modality)) for row in table.itertuples()]
        records = list(run(jobs))
    return {
        **summarise(experiment, table, records, {fold: chosen[fold].to_dict() for fold in folds}),
        "parameters": final.to_dict(),
        "score_default_parameters": round(scores.mean(Parameters(), everything), 6),
        "score_fitted": round(float(fitted.mean()), 6),
    }


def search_all(scores: Scores[Parameters], rows: Rows, sample: Rows, modalities: pd.Series) -> Tuned:
    """General parameters, and those of each modality, that the images of `rows` favour, and no other image."""
    general = search(scores, rows, sample)
    own = {}
    for modality, of_modality in rows_by_modality(rows, modalities):
        if len(of_modality) <= len(rows) / 2:
            best = _climb_all(scores, general, OWN_GRID, of_modality)
            if best != general:
                own[modality] = best
    return Tuned(general, own)


def rows_by_modality(rows: Rows, modalities: pd.Series) -> Iterator[tuple[str, Rows]]:
    """Each modality that has OWN_FROM of the rows or more, by name, with its rows; `modalities` has that of all."""
    for modality in sorted(modalities.iloc[rows].unique()):
        of_modality = rows[(modalities.iloc[rows] == modality).to_numpy()]
        if len(of_modality) >= OWN_FROM:
            yield str(modality), of_modality


def search(
    scores: Scores[Parameters],
    rows: Rows,
    sample: Rows,
    grid: Mapping[str, Sequence[float]] = GRID,
    start: Parameters = START,
) -> Parameters:
    """The parameters that the images of `rows` favour, and no other image; `sample` is what the coarse search sees."""
    best, coarse_rows = start, np.intersect1d(rows, sample)
    for _ in range(PASSES):
        before = best
        best = _climb_all(scores, best, grid, coarse_rows)
        if best == before:
            break
    if len(rows) >= FINE_FROM:
        for name, step in HALF_STEPS.items():
            value = getattr(best, name)
            near = [round(value + shift, 3) for shift in (-step, step) if 0 <= value + shift <= 1]
            best = _climb_all(scores, best, {name: near}, rows)
    return best


def _climb_all(
    scores: Scores[Parameters], best: Parameters, grid: Mapping[str, Sequence[float]], rows: Rows
) -> Parameters:
    """The best along the values of one parameter after the other, each time from what it is already."""
    for name, values in grid.items():
        line = [replace(best, **{name: value}) for value in sorted({*values, getattr(best, name)})]
        best = climb(scores, line, best, rows)
    return best


def climb(scores: Scores[Candidate], line: Sequence[Candidate], start: Candidate, rows: Rows) -> Candidate:
    """The best of a line of candidates: from `start`, one of them, to the better side, and on while it rises."""
    steps = [-1, 1]
    while True:
        place = line.index(start)
        ends = [place + step for step in steps if 0 <= place + step < len(line)]
        if not ends:
            return start
        scores.fill([start, *(line[end] for end in ends)], rows)
        means = [scores.mean(line[end], rows) for end in ends]
        winner = ends[int(np.argmax(means))]
        if not scores.gains(line[winner], start, rows, CAUTION):
            return start
        start, steps = line[winner], [winner - place]


def segment_test(maps: Path, tuned: Path | Tuned, modalities: Mapping[str, str]) -> Iterator[tuple[str, LabelMap]]:
    """Image ids in their order, each with the label map of its maps by what is tuned, given or in a `cv.json`.

    `modalities` gives the modality of each of the images.

    Raises:
        UserError: maps that lack an image; a `cv.json` without parameters.
    """
    archive = Maps(maps)
    if isinstance(tuned, Path):
        tuned = _read_tuned(tuned)
    for image_id, modality in modalities.items():
        yield image_id, segment_maps(archive[image_id], tuned.of(modality))


def _find_sources(processed: Path, table: pd.DataFrame) -> list[str]:
    """Source of each image of a table by image_id; its group of tiles where the index has no sources."""
    index = Images(processed).index.set_index("image_id")
    column = SOURCE if SOURCE in index else "group"
    return [str(source) for source in index[column].loc[table.image_id]]


def _read_tuned(cv: Path) -> Tuned:
    values = read_json(cv).get("parameters")
    if values is None:
        raise UserError(f"{cv}: holds no post-processing parameters; run the tuning on these maps' experiment")
    return Tuned.from_dict(values)


def _check_images(maps: Path, splits: Path, table: pd.DataFrame) -> None:
    if table.fold.nunique() < 2:
        raise UserError(f"{splits}: {table.fold.nunique()} fold; tuning needs two at least to score honestly")
    missing, unknown = set(table.image_id) - set(Maps(maps).ids), set(Maps(maps).ids) - set(table.image_id)
    if missing or unknown:
        raise UserError(
            f"{maps}: lacks {len(missing)} of the {len(table)} images in {splits} {sorted(missing)[:3]} and holds "
            f"{len(unknown)} others {sorted(unknown)[:3]}; predict all folds of these splits and join them"
        )


def _stratified_sample(table: pd.DataFrame) -> Rows:
    """About COARSE_IMAGES rows, even in modality and fold, the same for all searches; all where fewer."""
    order = table.sort_values(["modality", "fold", "image_id"]).index.to_numpy()
    return np.sort(order[:: max(1, len(order) // COARSE_IMAGES)])


def _describe(tuned: Tuned) -> str:
    own = [f"; {modality}: {_differences(parameters)}" for modality, parameters in tuned.modality.items()]
    return _differences(tuned.general) + "".join(own)


def _differences(parameters: Parameters) -> str:
    default = Parameters()
    changed = {field.name: getattr(parameters, field.name) for field in fields(Parameters)}
    return ", ".join(f"{k} {v}" for k, v in changed.items() if v != getattr(default, k)) or "the default parameters"
