"""How much each member counts in the ensemble's mean, found on out-of-fold maps.

As with the post-processing, the maps of a fold are averaged with shares that the images of the other folds favour, so
that the score does not flatter itself; the test images get those that all images favour. Averaged maps are scored with
the default post-processing. The search climbs along the share of one member after the other, from all alike; it keeps
a step only if the gain is clear against its scatter over the images.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nuclei.artifacts import Images, Maps, read_json, read_splits
from nuclei.ensemble import mean_of_maps
from nuclei.metric import average_precision
from nuclei.postprocessing import Parameters, segment_maps
from nuclei.scoring import open_pool
from nuclei.tuning import COARSE_IMAGES, FloatArray, Rows, Scores, climb, stratified_sample

log = logging.getLogger(__name__)

Shares = tuple[float, ...]
"""One a member, in relation to each other."""

VALUES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Shares tried for a member beside 1 for the first one."""


def find_shares(members: Mapping[str, Path], processed: Path, splits: Path, workers: int = 1) -> dict[str, Any]:
    """What `shares.json` holds of members' out-of-fold maps: shares for the test images and, by fold, for its images.

    `score` is the mean over a sample of images, each with its own fold's shares, `score_alike` that of an equal mean.

    Raises:
        ValueError: fewer than two members; maps that lack images of the splits; maps of different sizes.
    """
    if len(members) < 2:
        raise ValueError(f"shares are between members; got {list(members)}, give the maps of two or more")
    table = read_splits(splits).sort_values("image_id").reset_index(drop=True)
    sample = stratified_sample(table)
    folds = sorted({int(fold) for fold in table.fold})
    alike = (1.0,) * len(members)
    with (
        open_pool(workers, _ShareScorer, list(members.values()), processed) as run,
        tqdm(desc="shares", unit=" segmentations", mininterval=1) as bar,
    ):
        scores: Scores[Shares] = Scores(list(table.image_id), run, bar.update)
        final = search_shares(scores, sample, len(members))
        by_fold = {fold: search_shares(scores, sample[table.fold[sample] != fold], len(members)) for fold in folds}
    rows = [(by_fold[int(table.fold[row])], row) for row in sample]
    fitted = [float(scores.by_image(shares, np.array([row]))[0]) for shares, row in rows]
    log.info("%s: %s", ", ".join(members), final)
    return {
        "shares": dict(zip(members, final, strict=True)),
        "fold": {str(fold): dict(zip(members, shares, strict=True)) for fold, shares in by_fold.items()},
        "n_images": len(sample),
        "score": round(float(np.mean(fitted)), 6),
        "score_alike": round(scores.mean(alike, sample), 6),
    }


def search_shares(scores: Scores[Shares], rows: Rows, members: int) -> Shares:
    """The shares that the images of `rows` favour, and no other image."""
    best = (1.0,) * members
    for member in range(1, members):
        line = [(*best[:member], value, *best[member + 1 :]) for value in VALUES]
        best = climb(scores, line, best, rows)
    return best


def read_shares(path: Path, names: Sequence[str]) -> Shares:
    """The shares of the members `names` that a `shares.json` holds for the test images.

    Raises:
        ValueError: shares of other members.
    """
    return _in_order(path, read_json(path)["shares"], names)


def read_fold_shares(path: Path, names: Sequence[str], splits: Path) -> dict[str, Shares]:
    """Those of each training image: the shares that were searched without its fold.

    Raises:
        ValueError: shares of other members; splits with a fold that they lack.
    """
    folds, table = read_json(path)["fold"], read_splits(splits)
    missing = sorted(set(table.fold.astype(str)) - set(folds))
    if missing:
        raise ValueError(f"{path}: no shares for the folds {missing} of {splits}; delete it and make it again")
    return {row.image_id: _in_order(path, folds[str(row.fold)], names) for row in table.itertuples()}


def _in_order(path: Path, shares: Mapping[str, float], names: Sequence[str]) -> Shares:
    if sorted(shares) != sorted(names):
        raise ValueError(
            f"{path}: shares of {sorted(shares)}, but the maps are of {sorted(names)}; delete it and make it again"
        )
    return tuple(shares[name] for name in names)


class _ShareScorer:
    """Scores of an image under several shares; opened once in each worker."""

    def __init__(self, members: Sequence[Path], processed: Path) -> None:
        self.members, self.images = [Maps(path) for path in members], Images(processed)
        self._read = lru_cache(maxsize=COARSE_IMAGES)(self._read_image)

    def __call__(self, job: tuple[str, list[Shares]]) -> list[FloatArray]:
        image_id, candidates = job
        maps, truth = self._read(image_id)
        parameters = Parameters()
        return [average_precision(truth, segment_maps(mean_of_maps(maps, shares), parameters)) for shares in candidates]

    def _read_image(self, image_id: str) -> Any:
        maps, truth = [archive[image_id] for archive in self.members], self.images.label_map(image_id)
        for archive, each in zip(self.members, maps, strict=True):
            if each.shape[1:] != truth.shape:
                raise ValueError(
                    f"{archive.path}: maps of image {image_id} are {each.shape}, its label map is {truth.shape}; "
                    "predict again from the prepared images of now"
                )
        return maps, truth
