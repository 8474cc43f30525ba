"""K-fold cross-validation: folds by groups of tiles, by source, or by modality."""

import logging
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nuclei.arrays import Float64Array
from nuclei.errors import UserError
from nuclei.progress import show_progress

log = logging.getLogger(__name__)


HELD_OUT, SEEN, UNSEEN = "held_out", "seen", "unseen"
"""Column of a table of folds, and its values, see `assign_seen_and_unseen`."""
SHUFFLES = 200
"""Shuffles of which `assign_folds` keeps the most balanced one."""


@dataclass(frozen=True)
class Fold:
    """Images to train on and images held out, by id; `number` is the fold that is held out."""

    number: int
    training: list[str]
    validation: list[str]


def assign_folds(index: pd.DataFrame, n_folds: int, seed: int) -> pd.DataFrame:
    """Table of the training images by id: image_id, fold (0..n_folds-1), group, modality, nuclei.

    Groups stay whole. Of SHUFFLES runs of scikit-learn's StratifiedGroupKFold, stratified by
    modality, the one with the smallest `imbalance` is kept.

    Raises:
        UserError: fewer than two folds, or too few groups for them.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    train = index[index.subset == "train"].sort_values("image_id").reset_index(drop=True)
    n_groups = train.group.nunique()
    if n_folds < 2:
        raise UserError(f"{n_folds} folds asked for; cross-validation needs 2 at least")
    if n_groups < n_folds:
        raise UserError(
            f"{n_folds} folds asked for, but the {len(train)} training images are only {n_groups} "
            f"groups of images from one picture; ask for {max(n_groups, 2)} folds or fewer, or "
            "add images"
        )
    weights = weigh(train)
    strata, _ = pd.factorize(train.modality, sort=True)
    groups, _ = pd.factorize(train.group, sort=True)
    if np.bincount(strata).max() < n_folds:
        log.warning(
            "no modality has %d images: the folds are balanced in nuclei and not in modality",
            n_folds,
        )
        strata = np.zeros_like(strata)
    best: tuple[float, npt.NDArray[np.int64]] | None = None
    for shuffle in show_progress(range(SHUFFLES), f"splits   {n_folds} folds", "shuffles"):
        splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed * SHUFFLES + shuffle)
        folds = np.zeros(len(train), np.int64)
        with warnings.catch_warnings():
            # a modality with fewer images than folds, which the printed table shows
            warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
            for fold, (_, held_out) in enumerate(splitter.split(folds, strata, groups)):
                folds[held_out] = fold
        score = imbalance(weights, folds, n_folds)
        if len(np.unique(folds)) == n_folds and (best is None or score < best[0]):
            best = score, folds
    if best is None:
        raise UserError(
            f"{n_groups} groups cannot fill {n_folds} folds evenly; ask for fewer folds or add images"
        )
    splits = train[["image_id", "group", "modality", "nuclei"]].astype({"nuclei": int})
    splits.insert(1, "fold", best[1])
    return splits


def assign_sources(index: pd.DataFrame, n_folds: int, seed: int) -> pd.DataFrame:
    """Table of the training images as of `assign_folds` that holds out whole sources.

    Its `group` is the source. Modalities are on both sides where they have several sources.

    Raises:
        UserError: fewer than two folds, or fewer sources than folds.
    """
    sources = index[index.subset == "train"].source
    if sources.nunique() < max(n_folds, 2):
        raise UserError(
            f"{n_folds} folds asked for, but the training images have {sources.nunique()} sources "
            f"({', '.join(sorted(set(sources))[:5])}); ask for fewer folds, or correct the sources"
        )
    return assign_folds(index.assign(group=index.source), n_folds, seed)


def assign_seen_and_unseen(index: pd.DataFrame, n_folds: int, seed: int) -> pd.DataFrame:
    """Table as of `assign_folds` with two folds: 0 is held out, 1 is trained on.

    The column `held_out` says of images of fold 0 whether training sees others of their source:
    `unseen` are those of whole sources, a fold of `assign_sources`; `seen` those of a fold of
    groups of the remaining images. Of the folds of sources the one with the most sources is taken
    whose modalities others have too, if there is one.

    Raises:
        UserError: as in `assign_sources` and `assign_folds`.
    """
    n_sources = index[index.subset == "train"].source.nunique()
    by_source = assign_sources(index, max(2, min(n_folds, n_sources)), seed)

    def value(fold: int) -> tuple[bool, int]:
        own, others = by_source[by_source.fold == fold], by_source[by_source.fold != fold]
        return set(own.modality) <= set(others.modality), own.group.nunique()

    unseen = set(by_source.image_id[by_source.fold == max(sorted(set(by_source.fold)), key=value)])
    rest = assign_folds(index[~index.image_id.isin(unseen)], n_folds, seed)
    seen = set(rest.image_id[rest.fold == 0])
    splits = index[index.subset == "train"].sort_values("image_id").reset_index(drop=True)
    splits = splits[["image_id", "group", "modality", "nuclei"]].astype({"nuclei": int})
    kinds = [UNSEEN if name in unseen else SEEN if name in seen else "" for name in splits.image_id]
    splits.insert(1, "fold", [0 if kind else 1 for kind in kinds])
    return splits.assign(**{HELD_OUT: kinds})


def assign_modalities(index: pd.DataFrame) -> pd.DataFrame:
    """Table of folds, as of `assign_folds`, of which fold k holds out the k-th modality by name.

    Groups stay whole: one that spans modalities is held out with that of most of its images.

    Raises:
        UserError: all images are of one modality.
    """
    splits = index[index.subset == "train"].sort_values("image_id").reset_index(drop=True)
    splits = splits[["image_id", "group", "modality", "nuclei"]].astype({"nuclei": int})
    held_out_with = splits.groupby("group").modality.agg(lambda modalities: modalities.mode().iloc[0])
    folds, names = pd.factorize(splits.group.map(held_out_with), sort=True)
    if len(names) < 2:
        raise UserError(
            f"the {len(splits)} training images are of {len(names)} modality "
            f"({', '.join(names)}): to leave one out needs 2 at least; add images, or make folds "
            "that are not by modality"
        )
    splits.insert(1, "fold", folds)
    return splits


def weigh(train: pd.DataFrame) -> Float64Array:
    """Quantities (1 + modalities, images) to balance over folds: nuclei, images of each modality.

    The row of nuclei sums to 1, and so do all rows of modalities together.
    """
    nuclei = train.nuclei.to_numpy(np.float64)
    modalities = pd.get_dummies(train.modality).to_numpy(np.float64).T
    return np.vstack([nuclei / max(nuclei.sum(), 1.0), modalities / len(train)])


def imbalance(weights: Float64Array, folds: npt.NDArray[np.int64], n_folds: int) -> float:
    """Imbalance of folds, 0 if balanced: sum over rows of the largest deviation from the mean."""
    held = np.stack([np.bincount(folds, row, n_folds) for row in weights])
    return float(np.abs(held - weights.sum(axis=1, keepdims=True) / n_folds).max(axis=1).sum())


def check_splits(splits: pd.DataFrame, index: pd.DataFrame) -> None:
    """Refuses folds that leak or do not fit the index.

    Raises: UserError: a training image missing, twice or unknown, a group other than the index's, a
        group in two folds,
            fold numbers with a gap (an empty fold), fewer than two folds.
    """
    train = index[index.subset == "train"].set_index("image_id")
    by_fold = splits.groupby("group").fold.nunique()
    faults: dict[str, Collection[str]] = {
        "images are there twice": splits.image_id[splits.image_id.duplicated()],
        "training images have no fold": set(train.index) - set(splits.image_id),
        "images are not in the index's training set": set(splits.image_id) - set(train.index),
        "images have another group in the index": splits.image_id[
            splits.group != splits.image_id.map(train.group)
        ],
        "groups leak, they are in more than one fold": by_fold.index[by_fold > 1],
    }
    for fault, names in faults.items():
        if len(names):
            raise UserError(f"splits: {len(names)} {fault}, such as {min(names)}; run `make splits` again")
    folds = sorted(splits.fold.unique().tolist())
    if len(folds) < 2 or folds != list(range(len(folds))):
        raise UserError(
            f"splits: the folds are {folds}, expected 0, 1, ... without a gap and two at least; "
            "run `make splits`"
        )


def select_folds(
    index: pd.DataFrame, splits: pd.DataFrame, folds: Sequence[int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The index and the splits without the training images of other folds; test images stay.

    Of a single fold the groups are shared out between two, within each modality: what is tuned on
    one half is scored on the other.

    Raises:
        UserError: an unknown fold; a single fold whose images are of one group.
    """
    unknown = sorted(set(folds) - set(splits.fold))
    if unknown:
        raise UserError(f"fold {unknown[0]} is unknown: the splits have the folds {sorted(set(splits.fold))}")
    selected = splits[splits.fold.isin(folds)].reset_index(drop=True)
    if len(set(folds)) == 1:
        groups = selected.sort_values(["modality", "group"]).group.unique()
        if len(groups) < 2:
            raise UserError(f"fold {folds[0]} holds out one group of images: give a second fold to tune on")
        selected = selected.assign(fold=selected.group.isin(groups[1::2]).astype(int))
    kept = (index.subset != "train") | index.image_id.isin(selected.image_id)
    return index[kept].reset_index(drop=True), selected


def summarise(splits: pd.DataFrame) -> list[str]:
    """Report: images by modality and fold, groups and nuclei by fold, and sizes of groups."""
    table = pd.crosstab(splits.modality, splits.fold)
    table.loc["images"] = table.sum()
    table.loc["groups"] = splits.groupby("fold").group.nunique()
    table.loc["nuclei"] = splits.groupby("fold").nuclei.sum()
    lines = [f"{'fold':20}" + "".join(f"{fold:7}" for fold in table.columns)]
    lines += [f"{name:20}" + "".join(f"{count:7}" for count in row) for name, row in table.iterrows()]
    sizes, counts = np.unique(splits.groupby("group").size(), return_counts=True)
    return lines + [
        f"{n} x {size} images from one picture" for size, n in zip(sizes, counts, strict=True) if size > 1
    ]


def choose_fold(splits: pd.DataFrame, number: int, images: int | None = None, seed: int = 0) -> Fold:
    """Fold `number` of a table of splits; trains on all other images, or on `images` drawn by seed.

    Raises:
        UserError: an unknown fold; a group of images on both sides; fewer images than asked for.
    """
    known = sorted(splits.fold.unique().tolist())
    if number not in known:
        raise UserError(f"fold {number} is unknown: the splits have the folds {known}; give one of them")
    held_out = splits.fold == number
    shared = set(splits.group[held_out]) & set(splits.group[~held_out])
    if shared:
        raise UserError(
            f"groups {sorted(shared)[:3]} are on both sides of fold {number}; run `make splits` again"
        )
    others = splits[~held_out]
    training = others.image_id.tolist()
    if images is not None:
        training = draw_subset(training, others.modality.tolist(), images, seed)
    return Fold(number, training, splits.image_id[held_out].tolist())


def choose_training(splits: pd.DataFrame, fold: str, images: int | None, seed: int) -> Fold:
    """Fold `number` as of `choose_fold`; `all` trains on every image and holds out none.

    The number of that one is the number of folds, which no other fold has.

    Raises:
        UserError: neither a number nor `all`; as in `choose_fold`.
    """
    if fold != "all":
        if not fold.isdecimal():
            raise UserError(f"fold {fold!r}: give the number of a fold, or all to hold out none")
        return choose_fold(splits, int(fold), images, seed)
    training = splits.image_id.tolist()
    if images is not None:
        training = draw_subset(training, splits.modality.tolist(), images, seed)
    return Fold(int(splits.fold.max()) + 1, training, [])


def held_out_images(checkpoint: dict[str, Any], source: Path, splits: pd.DataFrame) -> list[str]:
    """Ids of the images that a checkpoint's fold holds out; `source` names it in errors.

    Raises:
        UserError: the checkpoint was trained on some of them.
    """
    held_out = choose_fold(splits, checkpoint["fold"]).validation
    seen = sorted(set(held_out) & set(checkpoint["trained_on"]))
    if seen:
        raise UserError(
            f"{source} was trained on {len(seen)} images that the splits hold out ({seen[0]} "
            "...): the splits have changed since; train the fold again"
        )
    return held_out


def draw_subset(ids: Sequence[str], modalities: Sequence[str], count: int, seed: int) -> list[str]:
    """Draws `count` ids, stratified by modality; a smaller draw is a subset of a larger one.

    Raises:
        UserError: fewer ids than `count`.
    """
    if count > len(ids):
        raise UserError(f"training.images = {count}, but the fold has {len(ids)} images to train on; lower it")
    generator = np.random.default_rng(seed)
    turns = np.empty(len(ids))
    for modality in sorted(set(modalities)):
        members = np.flatnonzero(np.array(modalities) == modality)
        # the k-th image of n gets the number (k + u) / n, so the first ones are in proportion
        turns[generator.permutation(members)] = (np.arange(len(members)) + generator.random()) / len(members)
    chosen = np.sort(np.argsort(turns, kind="stable")[:count])
    return [ids[number] for number in chosen]
