"""Scores on sources that training never saw, and what they let expect of a new laboratory.

Each image is predicted by the network of the fold that holds its whole source out (laboratory,
microscope, stain). `UnseenScores` is the content of `runs/by_source/<experiment>/unseen.json`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from nuclei.arrays import Float64Array
from nuclei.data.prepared_images import Images
from nuclei.errors import UserError
from nuclei.evaluation.bootstrap import RESAMPLES, bootstrap_interval, paired_difference
from nuclei.evaluation.score_cache import MapScorer
from nuclei.evaluation.scores import Count, CrossValidation, ExperimentScores, Score, summarise_scores
from nuclei.evaluation.tuning import START, check_images, find_sources
from nuclei.io.names import check_name
from nuclei.io.parallel import open_pool
from nuclei.io.records import Record, read_record
from nuclei.io.tables import read_splits
from nuclei.models.weights_file import UnseenScore
from nuclei.postprocessing.parameters import Tuned
from nuclei.progress import name_job, show_progress

REMEDY = "make it again with `make unseen`"


class TunedGain(Record):
    """Score with post-processing tuned on other folds' sources, and its paired gain over START."""

    score: Score
    gain: float
    low: float
    high: float
    """Bounds of the gain that hold 95% of resampled sources."""


class UnseenScores(ExperimentScores):
    """Scores with the post-processing START, which no image was used to choose."""

    source: dict[str, str]
    """Source of each image by id."""
    test_modality: dict[str, Count]
    """Number of test images of each modality."""
    tuned: TunedGain


class Expectation(Record):
    """Score to expect on images of a new laboratory, with its 95% interval over resampled sources.

    `lowest` and `highest` are the scores of single sources, `images` how many images were `wanted`
    of each modality.
    """

    score: float
    low: float
    high: float
    lowest: float
    highest: float
    images: dict[str, int] = Field(default_factory=dict)


def score_unseen(maps: Path, cv: Path, processed: Path, splits: Path, workers: int = 1) -> UnseenScores:
    """Scores of out-of-fold maps whose folds hold out whole sources; `cv` is their tuned `cv.json`.

    Raises:
        UserError: folds that hold out a part of a source; files that are missing or do not fit each
            other.
    """
    tuned = read_record(cv, CrossValidation, "run the tuning, which writes it")
    experiment = check_name(tuned.experiment)
    table = read_splits(splits).sort_values("image_id").reset_index(drop=True)
    check_images(maps, splits, table)
    sources = find_sources(processed, table)
    _check_whole_sources(splits, table, sources)
    jobs = [(image_id, START) for image_id in table.image_id]
    with open_pool(workers, MapScorer, maps, processed) as run:
        records = list(show_progress(run(jobs), name_job("score", experiment), "images", len(jobs)))
    untouched = dict.fromkeys(sorted({int(fold) for fold in table.fold}), Tuned(START, {}))
    summary = summarise_scores(experiment, table, records, untouched)
    source = dict(zip(table.image_id, sources, strict=True))
    index = Images(processed).index
    counts = index.modality[index.subset == "test"].value_counts()
    return UnseenScores(
        **dict(summary),
        source=source,
        test_modality={str(name): int(counts[name]) for name in sorted(counts.index)},
        tuned=_compare_tuned(image_scores(tuned), image_scores(summary), source),
    )


def image_scores(scores: ExperimentScores) -> dict[str, float]:
    """Score of each image by id: the mean of its average precisions over the thresholds."""
    return {image_id: float(np.mean(image.ap)) for image_id, image in scores.image.items()}


def summarise_unseen(scores: UnseenScores) -> UnseenScore:
    """The score with its interval, for a card."""
    low, high = bootstrap_interval(np.array(list(image_scores(scores).values())), list(scores.source.values()))
    return UnseenScore(
        score=scores.score,
        low=round(low, 6),
        high=round(high, 6),
        images=scores.n_images,
        sources=len(set(scores.source.values())),
    )


def read_unseen(path: Path) -> UnseenScores:
    """The content of an `unseen.json`.

    Raises:
        UserError: the file is missing or of another kind.
    """
    return read_record(path, UnseenScores, REMEDY)


def expect_elsewhere(
    scores: Mapping[str, float],
    modality: Mapping[str, str],
    source: Mapping[str, str],
    wanted: Mapping[str, int],
) -> Expectation:
    """Score to expect on images of a new laboratory, from scores on unseen sources by image id.

    A source is one laboratory, so that each counts the same within its modality, however many
    images it has. The modalities are weighted by the number of images `wanted` of each; one without
    scores counts as the mean of all sources. Without any `wanted` the modalities are weighted as
    the scored images have them. The interval resamples sources.
    """
    table = pd.DataFrame(
        {"score": pd.Series(scores), "modality": pd.Series(modality), "source": pd.Series(source)}
    )
    cells = table.pivot_table(index="source", columns="modality", values="score", aggfunc="mean")
    weights = pd.Series(dict(wanted) or table.modality.value_counts().to_dict(), dtype=np.float64)
    means = cells.reindex(columns=weights.index).to_numpy(np.float64)
    everything = cells.to_numpy(np.float64)
    drawn = np.random.default_rng(0).integers(0, len(cells), (RESAMPLES, len(cells)))
    resampled = [_reweight(means[rows], everything[rows], weights.to_numpy()) for rows in drawn]
    low, high = np.quantile(resampled, [0.025, 0.975])
    by_source = table.groupby("source").score.mean()
    return Expectation(
        score=_reweight(means, everything, weights.to_numpy()),
        low=float(low),
        high=float(high),
        lowest=float(by_source.min()),
        highest=float(by_source.max()),
        images=dict(wanted),
    )


def _reweight(means: Float64Array, everything: Float64Array, weights: Float64Array) -> float:
    """Weighted mean over modalities (M,) of the mean over each one's sources; means (S, M)."""
    has = np.isfinite(means)
    counts = has.sum(axis=0)
    sums = np.where(has, means, 0.0).sum(axis=0)
    fallback = float(np.nanmean(everything))
    by_modality = np.where(counts > 0, sums / np.maximum(counts, 1), fallback)
    return float(np.average(by_modality, weights=weights))


def _compare_tuned(
    tuned: Mapping[str, float], base: Mapping[str, float], source: Mapping[str, str]
) -> TunedGain:
    if tuned.keys() != base.keys():
        raise UserError(f"cv.json has {len(tuned)} images, the maps have {len(base)}; {REMEDY}")
    gain, low, high = (round(value, 6) for value in paired_difference(tuned, base, source))
    return TunedGain(score=round(float(np.mean(list(tuned.values()))), 6), gain=gain, low=low, high=high)


def _check_whole_sources(splits: Path, table: pd.DataFrame, sources: list[str]) -> None:
    folds = table.fold.groupby(pd.Series(sources)).nunique()
    if (folds > 1).any():
        raise UserError(
            f"{splits}: {int((folds > 1).sum())} sources are in several folds, such as "
            f"{folds.idxmax()}, so that training saw them; give folds that hold whole sources "
            "out: make_folds.py --by source"
        )
