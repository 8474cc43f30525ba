"""How much each member counts in the ensemble's mean, found on out-of-fold maps.

As with the post-processing, the maps of a fold are averaged with shares that the images of the other folds favour, so
that the score does not flatter itself; the test images get those that all images favour. Averaged maps are scored with
the post-processing that the tuning begins at. The search climbs along the share of one member after the other, from
all alike; it keeps a step only if the gain is clear against its scatter over the images. From there it goes on for
each modality that has enough images: a member that is good at fluorescence may be poor at tissue.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from tqdm import tqdm

from nuclei.arrays import Float64Array
from nuclei.data.modality import ALL
from nuclei.data.prepared_images import Images
from nuclei.errors import UserError
from nuclei.evaluation.metric import average_precision
from nuclei.evaluation.score_cache import Rows, Scores
from nuclei.evaluation.tuning import START, climb, rows_by_modality
from nuclei.io.files import read_json
from nuclei.io.parallel import open_pool
from nuclei.io.probability_maps import Maps, mean_of_maps, read_maps
from nuclei.io.tables import INDEX_COLUMNS, read_splits, read_table
from nuclei.postprocessing.watershed import segment_maps

Shares = tuple[float, ...]
"""One a member, in relation to each other."""
Found = TypeVar("Found")

VALUES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Shares tried for a member beside 1 for the first one."""


def find_shares(members: Mapping[str, Path], processed: Path, splits: Path, workers: int = 1) -> dict[str, Any]:
    """What `shares.json` holds of members' out-of-fold maps: shares for the test images and, by fold, for its images.

    `score` is the mean over the images, each with its own fold's shares, `score_alike` that of an equal mean.

    Raises:
        UserError: fewer than two members; maps that lack images of the splits; maps of different sizes.
    """
    if len(members) < 2:
        raise UserError(f"shares are between members; got {list(members)}, give the maps of two or more")
    table = read_splits(splits).sort_values("image_id").reset_index(drop=True)
    everything = np.arange(len(table))
    folds = sorted({int(fold) for fold in table.fold})
    with (
        open_pool(workers, _ShareScorer, list(members.values()), processed) as run,
        tqdm(desc="shares", unit=" segmentations", mininterval=1) as bar,
    ):
        scores: Scores[Shares] = Scores(list(table.image_id), run, bar.update)
        final = search_shares(scores, everything, len(members), table.modality)
        by_fold = {
            fold: search_shares(scores, np.flatnonzero(table.fold != fold), len(members), table.modality)
            for fold in folds
        }
        own = []
        for (fold, modality), part in table.groupby(["fold", "modality"]):
            rows, shares = part.index.to_numpy(), _of(by_fold[fold], modality)
            scores.fill([shares], rows)
            own.append(scores.by_image(shares, rows))
    return {
        "shares": _named(final, members),
        "fold": {str(fold): _named(shares, members) for fold, shares in by_fold.items()},
        "n_images": len(table),
        "score": round(float(np.concatenate(own).mean()), 6),
        "score_alike": round(scores.mean((1.0,) * len(members), everything), 6),
    }


def search_shares(scores: Scores[Shares], rows: Rows, members: int, modalities: pd.Series) -> dict[str, Shares]:
    """The shares that the images of `rows` favour, and no other image: of ALL, and of modalities that differ."""

    def search(best: Shares, rows: Rows) -> Shares:
        for member in range(1, members):
            line = [(*best[:member], value, *best[member + 1 :]) for value in VALUES]
            best = climb(scores, line, best, rows)
        return best

    found = {ALL: search((1.0,) * members, rows)}
    for modality, of_modality in rows_by_modality(rows, modalities):
        if (own := search(found[ALL], of_modality)) != found[ALL]:
            found[modality] = own
    return found


def read_shares(path: Path, names: Sequence[str], index: Path, splits: Path | None = None) -> dict[str, Shares]:
    """The shares of the members `names` for each image of an `index.csv`.

    `path` is a `shares.json` or the card of an ensemble of weights. With splits a training image gets what was searched
    without its fold, else every image what all images favour.

    Raises:
        UserError: shares of other members; splits with a fold that they lack.
    """
    content, table = read_json(path), read_table(index, INDEX_COLUMNS, "run `make data`")
    folds = {} if splits is None else read_splits(splits).set_index("image_id").fold.astype(str).to_dict()
    missing = sorted(set(folds.values()) - set(content.get("fold", {})))
    if missing:
        raise UserError(f"{path}: no shares for the folds {missing} of {splits}; delete it and make it again")
    found = {None: content["shares"], **content.get("fold", {})}
    return {
        row.image_id: _in_order(path, _of(found[folds.get(row.image_id)], row.modality), names)
        for row in table.itertuples()
    }


def read_general(path: Path, names: Sequence[str]) -> Shares:
    """The shares that hold for modalities without some of their own; raises as `read_shares`."""
    return _in_order(path, read_json(path)["shares"][ALL], names)


def _named(found: Mapping[str, Shares], members: Iterable[str]) -> dict[str, dict[str, float]]:
    return {modality: dict(zip(members, shares, strict=True)) for modality, shares in found.items()}


def _of(found: Mapping[str, Found], modality: str) -> Found:
    return found.get(modality, found[ALL])


def _in_order(path: Path, shares: Mapping[str, float], names: Sequence[str]) -> Shares:
    if sorted(shares) != sorted(names):
        raise UserError(
            f"{path}: shares of {sorted(shares)}, but the maps are of {sorted(names)}; delete it and make it again"
        )
    return tuple(shares[name] for name in names)


class _ShareScorer:
    """Scores of an image under several shares; opened once in each worker."""

    def __init__(self, members: Sequence[Path], processed: Path) -> None:
        self.members, self.images = [Maps(path) for path in members], Images(processed)

    def __call__(self, job: tuple[str, list[Shares]]) -> list[Float64Array]:
        image_id, candidates = job
        truth, parameters = self.images.label_map(image_id), START
        maps = [read_maps(archive, image_id, truth, self.images.folder) for archive in self.members]
        return [average_precision(truth, segment_maps(mean_of_maps(maps, shares), parameters)) for shares in candidates]
