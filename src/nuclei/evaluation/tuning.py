"""Tunes the post-processing on out-of-fold probability maps.

Each fold is scored with parameters that were tuned on the images of the other folds; the parameters
for the test images are tuned on all. The search is a coordinate ascent over a coarse grid, followed
by half steps of the parameters that matter most. It keeps a step only if the gain is clear against
its standard error over the sources of the images. From there it continues for each modality that
has enough images and at most half of them.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from nuclei.arrays import LabelMap
from nuclei.data.prepared_images import Images
from nuclei.errors import UserError
from nuclei.evaluation.score_cache import CACHED_IMAGES, Candidate, MapScorer, Rows, Scores
from nuclei.evaluation.scores import CrossValidation, summarise_scores
from nuclei.io.names import check_name
from nuclei.io.parallel import open_pool
from nuclei.io.probability_maps import Maps
from nuclei.io.tables import SOURCE, read_splits
from nuclei.postprocessing.parameters import NEUTRAL, Parameters, Tuned
from nuclei.postprocessing.watershed import segment_maps
from nuclei.progress import Progress, name_job

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
"""Values tried, in the order of the search: parameters that move the score most come first."""

HALF_STEPS: dict[str, float] = {
    "foreground_threshold": 0.05,
    "instance_threshold": 0.025,
    "seed_threshold": 0.05,
    "min_relative_area": 0.025,
    "min_mean_probability": 0.025,
}
"""Distance of the last values tried from the best value of these parameters."""
COARSE_IMAGES = CACHED_IMAGES
"""At most so many images in the coarse search; half steps are tried on all."""
MIN_FINE_IMAGES = 100
"""Fewer images cannot tell half steps apart, so none are tried."""
START = NEUTRAL
"""Start of the search. A parameter leaves it only on a gain that holds over sources: thresholds
that suit the sources of the training images cost several times their gain on other sources.
"""
PASSES = 2
"""Maximum number of rounds of the coarse search over all parameters."""
MIN_MODALITY_IMAGES = 10
"""A modality with fewer images gets the general parameters."""
MODALITY_GRID: dict[str, tuple[float, ...]] = {
    "foreground_threshold": (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75),
    "instance_threshold": (0.0, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7),
    "seed_threshold": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6),
    "border_weight": (0.0, 0.5, 1.0, 2.0),
    "min_relative_area": (0.0, 0.05, 0.1, 0.15, 0.2, 0.3),
    "min_mean_probability": (0.0, 0.6, 0.7, 0.8, 0.9),
}
"""Values tried for a modality."""
MIN_GAIN = 1.0
"""Minimum gain of a step, in standard errors of its mean gain, clustered by source."""


def cross_validate(
    experiment: str, maps: Path, processed: Path, splits: Path, workers: int = 1
) -> CrossValidation:
    """Tunes and scores the post-processing on out-of-fold maps.

    Each image is segmented with its own fold's parameters, tuned without that fold. The result does
    not depend on the number of workers.

    Raises:
        UserError: an unsafe name of an experiment; fewer than two folds; maps that do not hold
            exactly the images of the splits, or of another size; files that are missing or do not
            fit each other.
    """
    check_name(experiment)
    table = read_splits(splits).sort_values("image_id").reset_index(drop=True)
    check_images(maps, splits, table)
    everything, sample = np.arange(len(table)), _stratified_sample(table)
    with (
        open_pool(workers, MapScorer, maps, processed) as run,
        Progress(name_job("tune", experiment), "segmentations") as progress,
    ):
        sources = find_sources(processed, table)
        scores: Scores[Parameters] = Scores(list(table.image_id), run, progress.update, sources)
        progress.describe(f"search 1 of {table.fold.nunique() + 1}")
        final = search_all(scores, everything, sample, table.modality)
        log.info("%s, all folds: %s", progress.job, _describe(final))
        by_fold = _search_folds(scores, table, sample, progress)
        progress.describe("")
        scores.fill([Parameters()], everything)
        fitted = _score_by_modality(scores, final, table)
        jobs = [(row.image_id, by_fold[int(row.fold)].of(row.modality)) for row in table.itertuples()]
        records = list(run(jobs))
    summary = summarise_scores(experiment, table, records, by_fold)
    return CrossValidation(
        **dict(summary),
        parameters=final,
        score_default_parameters=round(scores.mean(Parameters(), everything), 6),
        score_fitted=round(fitted, 6),
    )


def _search_folds(
    scores: Scores[Parameters], table: pd.DataFrame, sample: Rows, progress: Progress
) -> dict[int, Tuned]:
    """For each fold the parameters tuned on the images of the other folds."""
    found: dict[int, Tuned] = {}
    folds = sorted({int(fold) for fold in table.fold})
    for fold in folds:
        progress.describe(f"search {len(found) + 2} of {len(folds) + 1}")
        others = np.flatnonzero(table.fold != fold)
        found[fold] = search_all(scores, others, sample, table.modality)
        log.info("%s, without fold %d: %s", progress.job, fold, _describe(found[fold]))
    return found


def _score_by_modality(scores: Scores[Parameters], tuned: Tuned, table: pd.DataFrame) -> float:
    """Mean score over the images, each with the parameters of its modality."""
    values = np.zeros(len(table))
    for modality in table.modality.unique():
        rows = np.flatnonzero(table.modality == modality)
        scores.fill([tuned.of(modality)], rows)
        values[rows] = scores.by_image(tuned.of(modality), rows)
    return float(values.mean())


def search_all(scores: Scores[Parameters], rows: Rows, sample: Rows, modalities: pd.Series) -> Tuned:
    """Parameters tuned on the images of `rows` alone: general ones, and those of modalities."""
    general = search(scores, rows, sample)
    own = {}
    for modality, of_modality in rows_by_modality(rows, modalities):
        if len(of_modality) <= len(rows) / 2:
            best = _climb_all(scores, general, MODALITY_GRID, of_modality)
            if best != general:
                own[modality] = best
    return Tuned(general, own)


def rows_by_modality(rows: Rows, modalities: pd.Series) -> Iterator[tuple[str, Rows]]:
    """Each modality with at least MIN_MODALITY_IMAGES of the rows, by name, and its rows.

    `modalities` has the modality of all images.
    """
    for modality in sorted(modalities.iloc[rows].unique()):
        of_modality = rows[(modalities.iloc[rows] == modality).to_numpy()]
        if len(of_modality) >= MIN_MODALITY_IMAGES:
            yield str(modality), of_modality


def search(
    scores: Scores[Parameters],
    rows: Rows,
    sample: Rows,
    grid: Mapping[str, Sequence[float]] = GRID,
    start: Parameters = START,
) -> Parameters:
    """Parameters tuned on the images of `rows` alone; the coarse search uses those in `sample`."""
    best, coarse_rows = start, np.intersect1d(rows, sample)
    for _ in range(PASSES):
        before = best
        best = _climb_all(scores, best, grid, coarse_rows)
        if best == before:
            break
    if len(rows) >= MIN_FINE_IMAGES:
        for name, step in HALF_STEPS.items():
            value = getattr(best, name)
            near = [round(value + shift, 3) for shift in (-step, step) if 0 <= value + shift <= 1]
            best = _climb_all(scores, best, {name: near}, rows)
    return best


def _climb_all(
    scores: Scores[Parameters], best: Parameters, grid: Mapping[str, Sequence[float]], rows: Rows
) -> Parameters:
    """Coordinate ascent: `climb` along the values of one parameter after the other."""
    for name, values in grid.items():
        line = [replace(best, **{name: value}) for value in sorted({*values, getattr(best, name)})]
        best = climb(scores, line, best, rows)
    return best


def climb(scores: Scores[Candidate], line: Sequence[Candidate], start: Candidate, rows: Rows) -> Candidate:
    """The best of a line of candidates, uphill from `start`, which is one of them."""
    steps = [-1, 1]
    while True:
        place = line.index(start)
        ends = [place + step for step in steps if 0 <= place + step < len(line)]
        if not ends:
            return start
        scores.fill([start, *(line[end] for end in ends)], rows)
        means = [scores.mean(line[end], rows) for end in ends]
        winner = ends[int(np.argmax(means))]
        if not scores.gains(line[winner], start, rows, MIN_GAIN):
            return start
        start, steps = line[winner], [winner - place]


def segment_test(maps: Path, tuned: Tuned, modalities: Mapping[str, str]) -> Iterator[tuple[str, LabelMap]]:
    """Label maps by image id, segmented from the maps with tuned parameters.

    `modalities` gives the modality of each image, in the order of the result.

    Raises:
        UserError: maps that lack an image.
    """
    archive = Maps(maps)
    for image_id, modality in modalities.items():
        yield image_id, segment_maps(archive[image_id], tuned.of(modality))


def find_sources(processed: Path, table: pd.DataFrame) -> list[str]:
    """Source of each image of the table; its group of tiles if the index has no sources."""
    index = Images(processed).index.set_index("image_id")
    column = SOURCE if SOURCE in index else "group"
    return [str(source) for source in index[column].loc[table.image_id]]


def check_images(maps: Path, splits: Path, table: pd.DataFrame) -> None:
    if table.fold.nunique() < 2:
        raise UserError(
            f"{splits}: {table.fold.nunique()} fold; tuning needs at least two, to score images "
            "that it did not see"
        )
    missing, unknown = (
        set(table.image_id) - set(Maps(maps).ids),
        set(Maps(maps).ids) - set(table.image_id),
    )
    if missing or unknown:
        raise UserError(
            f"{maps}: lacks {len(missing)} of the {len(table)} images in {splits} "
            f"{sorted(missing)[:3]} and holds {len(unknown)} others {sorted(unknown)[:3]}; "
            "predict all folds of these splits and join them"
        )


def _stratified_sample(table: pd.DataFrame) -> Rows:
    """About COARSE_IMAGES rows, stratified by modality and fold; all rows if there are fewer."""
    order = table.sort_values(["modality", "fold", "image_id"]).index.to_numpy()
    return np.sort(order[:: max(1, len(order) // COARSE_IMAGES)])


def _describe(tuned: Tuned) -> str:
    own = [f"; {modality}: {_differences(parameters)}" for modality, parameters in tuned.modality.items()]
    return _differences(tuned.general) + "".join(own)


def _differences(parameters: Parameters) -> str:
    default = Parameters()
    changed = {field.name: getattr(parameters, field.name) for field in fields(Parameters)}
    return (
        ", ".join(f"{k} {v}" for k, v in changed.items() if v != getattr(default, k))
        or "the default parameters"
    )
