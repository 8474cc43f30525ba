"""Ensemble weights of the members, tuned on their out-of-fold probability maps.

As with the post-processing, a fold's maps are averaged with weights tuned on the images of the
other folds, so that the score is out of fold; the test images get the weights tuned on all images.
Averaged maps are scored with the post-processing at which its own tuning starts. The search is a
coordinate ascent over the weight of one member after the other, from equal weights; it keeps a step
only if the gain is clear against its scatter over the images. From there it continues for each
modality with enough images: a member that is good at fluorescence may be poor at tissue.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from nuclei.arrays import Float64Array
from nuclei.data.modality import ALL
from nuclei.data.prepared_images import Images
from nuclei.errors import UserError
from nuclei.evaluation.metric import average_precision
from nuclei.evaluation.score_cache import Rows, Scores
from nuclei.evaluation.tuning import START, climb, rows_by_modality
from nuclei.io.names import Name, check_name
from nuclei.io.parallel import open_pool
from nuclei.io.probability_maps import Maps, mean_of_maps, read_maps
from nuclei.io.records import Record, read_values, rename_keys, validate_record
from nuclei.io.tables import INDEX_COLUMNS, read_splits, read_table
from nuclei.models.weights_file import EnsembleCard, Weight
from nuclei.postprocessing.watershed import segment_maps
from nuclei.progress import Progress, name_job

MemberWeights = tuple[float, ...]
"""Weight of each member in order; only their ratios matter."""
WeightsByModality = Mapping[str, MemberWeights]
"""Under ALL the weights of modalities without weights of their own."""

VALUES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Weights tried for a member; that of the first one stays 1."""

_RENAMED = {"shares": "weights", "score_alike": "score_equal"}
_REMEDY = "delete it and make it again"

NamedWeights = dict[Name, dict[Name, Weight]]
"""Weights by modality and member, for JSON."""


class EnsembleWeights(Record):
    """The content of `ensemble_weights.json`: tuned on all images, and by fold on those outside it.

    `score` is the mean over `n_images` images, each with the weights of its own fold, `score_equal`
    that of equal weights.
    """

    weights: NamedWeights
    fold: dict[str, NamedWeights]
    n_images: int
    score: Annotated[float, Field(ge=0, le=1)]
    score_equal: Annotated[float, Field(ge=0, le=1)]

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, values: Any) -> Any:
        return rename_keys(values, _RENAMED, "ensemble weights") if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _has_the_same_members_everywhere(self) -> Self:
        for named in [self.weights, *self.fold.values()]:
            if ALL not in named or any(weights.keys() != self.members for weights in named.values()):
                raise UserError(f"expected weights of {sorted(self.members)} everywhere, and those of {ALL!r}")
        return self

    @property
    def members(self) -> set[str]:
        """Names of the members."""
        return set(self.weights.get(ALL, {}))


def tune_weights(
    members: Mapping[str, Path], processed: Path, splits: Path, workers: int = 1
) -> EnsembleWeights:
    """Ensemble weights tuned on the members' out-of-fold maps.

    Raises:
        UserError: fewer than two members, or one with an unsafe name; maps that lack images of the
            splits; maps of different sizes.
    """
    if len(members) < 2:
        raise UserError(
            f"ensemble weights are between members; got {list(members)}, give the maps of two or more"
        )
    for name in members:
        check_name(name)
    table = read_splits(splits).sort_values("image_id").reset_index(drop=True)
    everything = np.arange(len(table))
    with (
        open_pool(workers, _WeightScorer, list(members.values()), processed) as run,
        Progress(name_job("tune", "ensemble weights"), "segmentations") as progress,
    ):
        scores: Scores[MemberWeights] = Scores(list(table.image_id), run, progress.update)
        final = search_weights(scores, everything, len(members), table.modality)
        by_fold = {
            fold: search_weights(scores, np.flatnonzero(table.fold != fold), len(members), table.modality)
            for fold in sorted({int(fold) for fold in table.fold})
        }
        score = _score_folds(scores, by_fold, table)
    return EnsembleWeights(
        weights=_name(final, members),
        fold={str(fold): _name(weights, members) for fold, weights in by_fold.items()},
        n_images=len(table),
        score=round(score, 6),
        score_equal=round(scores.mean((1.0,) * len(members), everything), 6),
    )


def _score_folds(
    scores: Scores[MemberWeights], by_fold: Mapping[int, WeightsByModality], table: pd.DataFrame
) -> float:
    """Mean score over the images, each with the weights of its fold and modality."""
    values = []
    for (fold, modality), part in table.groupby(["fold", "modality"]):
        rows, weights = part.index.to_numpy(), _choose(by_fold[fold], modality)
        scores.fill([weights], rows)
        values.append(scores.by_image(weights, rows))
    return float(np.concatenate(values).mean())


def search_weights(
    scores: Scores[MemberWeights], rows: Rows, members: int, modalities: pd.Series
) -> dict[str, MemberWeights]:
    """Weights tuned on the images of `rows`, by modality: those under ALL, and what differs."""
    found = {ALL: _climb_members(scores, (1.0,) * members, rows)}
    for modality, of_modality in rows_by_modality(rows, modalities):
        own = _climb_members(scores, found[ALL], of_modality)
        if own != found[ALL]:
            found[modality] = own
    return found


def _climb_members(scores: Scores[MemberWeights], best: MemberWeights, rows: Rows) -> MemberWeights:
    for member in range(1, len(best)):
        line = [(*best[:member], value, *best[member + 1 :]) for value in VALUES]
        best = climb(scores, line, best, rows)
    return best


def read_weights_by_image(
    path: Path, names: Sequence[str], index: Path, splits: Path | None = None
) -> dict[str, MemberWeights]:
    """The ensemble weights of the members `names` for each image of an `index.csv`.

    `path` is an `ensemble_weights.json` or an ensemble's card. With splits, a training image gets
    the weights tuned without its fold; otherwise images get those tuned on all.

    Raises:
        UserError: weights of other members; splits with a fold that they lack.
    """
    weights, by_fold = _read(path)
    table = read_table(index, INDEX_COLUMNS, "run `make data`")
    folds = {} if splits is None else read_splits(splits).set_index("image_id").fold.astype(str).to_dict()
    missing = sorted(set(folds.values()) - set(by_fold))
    if missing:
        raise UserError(f"{path}: no ensemble weights for the folds {missing} of {splits}; {_REMEDY}")
    found: dict[str, MemberWeights] = {}
    for row in table.itertuples():
        own = by_fold[folds[row.image_id]] if row.image_id in folds else weights
        found[row.image_id] = _in_order(path, own.get(row.modality, own[ALL]), names)
    return found


def read_general_weights(path: Path, names: Sequence[str]) -> MemberWeights:
    """Weights of modalities without weights of their own. Raises as `read_weights_by_image`."""
    return _in_order(path, _read(path)[0][ALL], names)


def read_ensemble_weights(path: Path) -> EnsembleWeights:
    """The content of an `ensemble_weights.json`.

    Raises:
        UserError: the file is missing or of another kind.
    """
    return validate_record(read_values(path, _REMEDY), EnsembleWeights, str(path), _REMEDY)


def _read(path: Path) -> tuple[NamedWeights, dict[str, NamedWeights]]:
    """Weights for all images, and by fold; an ensemble's card has no folds."""
    values = read_values(path, _REMEDY)
    if isinstance(values, dict) and "members" in values:
        return validate_record(values, EnsembleCard, str(path), _REMEDY).weights, {}
    found = validate_record(values, EnsembleWeights, str(path), _REMEDY)
    return found.weights, found.fold


def _name(found: WeightsByModality, members: Iterable[str]) -> NamedWeights:
    return {modality: dict(zip(members, weights, strict=True)) for modality, weights in found.items()}


def _choose(found: WeightsByModality, modality: str) -> MemberWeights:
    return found.get(modality, found[ALL])


def _in_order(path: Path, weights: Mapping[str, float], names: Sequence[str]) -> MemberWeights:
    if sorted(weights) != sorted(names):
        raise UserError(
            f"{path}: ensemble weights of {sorted(weights)}, but the maps are of {sorted(names)}; {_REMEDY}"
        )
    return tuple(weights[name] for name in names)


class _WeightScorer:
    """Scores of an image under several ensemble weights; one is opened in each worker."""

    def __init__(self, members: Sequence[Path], processed: Path) -> None:
        self.members, self.images = [Maps(path) for path in members], Images(processed)

    def __call__(self, job: tuple[str, list[MemberWeights]]) -> list[Float64Array]:
        image_id, candidates = job
        truth = self.images.label_map(image_id)
        maps = [read_maps(archive, image_id, truth, self.images.folder) for archive in self.members]
        return [
            average_precision(truth, segment_maps(mean_of_maps(maps, weights), START)) for weights in candidates
        ]
