"""Folds keep groups together, are even or hold out a modality each; leaking splits are refused."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from nuclei.data.splits import (
    Fold,
    assign_folds,
    assign_modalities,
    assign_seen_and_unseen,
    check_splits,
    choose_fold,
    choose_training,
    draw_subset,
    imbalance,
    select_folds,
    summarise,
    weigh,
)
from nuclei.errors import UserError

MODALITIES = ("small_fluorescence", "large_fluorescence", "purple_tissue", "grey_tissue", "pink_purple_tissue")


@pytest.fixture(autouse=True)
def _few_shuffles(monkeypatch):
    monkeypatch.setattr("nuclei.data.splits.SHUFFLES", 20)


def make_index(sizes, seed=0):
    """Index of groups with `sizes` images each, the modalities in turn, and two test images."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, size in enumerate(sizes):
        ids = [f"{number:03d}-{k}" for k in range(size)]
        modality = MODALITIES[number % 10 % 5]
        rows += [(i, "train", modality, ids[0], int(rng.integers(1, 200))) for i in ids]
    rows += [(f"test-{k}", "test", MODALITIES[0], f"test-{k}", None) for k in range(2)]
    return pd.DataFrame(rows, columns=["image_id", "subset", "modality", "group", "nuclei"])


@pytest.mark.parametrize("n_folds", [2, 3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_folds_keep_groups_together_and_leave_no_image_out(n_folds, seed):
    index = make_index([4, 1, 1, 2, 8, 1, 1, 4, 4, 1] * 3, seed)
    splits = assign_folds(index, n_folds, seed)
    check_splits(splits, index)
    assert list(splits.columns) == ["image_id", "fold", "group", "modality", "nuclei"]
    assert splits.groupby("group").fold.nunique().max() == 1
    assert list(splits.image_id) == sorted(index.image_id[index.subset == "train"])


def test_folds_of_single_images_hold_each_modality_evenly():
    splits = assign_folds(make_index([1] * 60), 3, 0)
    counts = pd.crosstab(splits.modality, splits.fold).to_numpy()
    assert (counts == 4).all()


def test_folds_are_more_even_than_groups_dealt_in_turn_and_than_a_single_shuffle(monkeypatch):
    index = make_index([1, 1, 4, 2] * 15)
    train = index[index.subset == "train"].sort_values("image_id").reset_index(drop=True)
    groups, _ = pd.factorize(train.group)
    chosen = assign_folds(index, 5, 0).fold.to_numpy()
    assert imbalance(weigh(train), chosen, 5) < imbalance(weigh(train), groups % 5, 5) / 2
    monkeypatch.setattr("nuclei.data.splits.SHUFFLES", 1)
    single = assign_folds(index, 5, 0).fold.to_numpy()
    assert imbalance(weigh(train), chosen, 5) < imbalance(weigh(train), single, 5)


def test_imbalance_is_zero_for_even_folds_and_counts_nuclei_and_modalities():
    train = pd.DataFrame({"modality": ["a", "a", "b", "b"], "nuclei": [2, 6, 2, 6]})
    weights = weigh(train)
    assert imbalance(weights, np.array([0, 1, 1, 0]), 2) == 0
    assert imbalance(weights, np.array([0, 1, 0, 1]), 2) == pytest.approx(0.25)  # 4 nuclei of 16, instead of 8
    assert imbalance(weights, np.array([0, 0, 1, 1]), 2) == pytest.approx(0.5)  # two modalities, a quarter each


def test_the_seed_and_only_the_seed_decides():
    index = make_index([1, 2, 4] * 10)
    shuffled = index.sample(frac=1, random_state=3)
    assert assign_folds(index, 3, 0).equals(assign_folds(shuffled, 3, 0))
    assert not assign_folds(index, 3, 0).fold.equals(assign_folds(index, 3, 1).fold)


def test_a_modality_in_one_group_lands_in_one_fold():
    index = make_index([1] * 30)
    index.loc[:3, ["modality", "group"]] = ["rare", "000-0"]
    splits = assign_folds(index, 5, 0)
    assert splits.fold[splits.modality == "rare"].nunique() == 1
    check_splits(splits, index)


def test_folds_without_a_modality_of_enough_images_are_filled_and_named(caplog):
    index = make_index([1] * 5)
    splits = assign_folds(index, 5, 0)
    check_splits(splits, index)
    assert "no modality has 5 images" in caplog.text


def test_too_few_groups_are_refused_with_their_number():
    with pytest.raises(ValueError, match="5 folds asked for, but the 12 training images are only 3 groups"):
        assign_folds(make_index([4, 4, 4]), 5, 0)


def test_by_modality_each_fold_holds_out_all_of_one_modality_and_nothing_else():
    index = make_index([4, 1, 2, 1, 1] * 3)
    splits = assign_modalities(index)
    check_splits(splits, index)
    assert list(splits.columns) == list(assign_folds(index, 2, 0).columns)
    held_out = [choose_fold(splits, fold) for fold in range(len(MODALITIES))]
    for fold, modality in zip(held_out, sorted(MODALITIES), strict=True):
        assert fold.validation == sorted(
            index.image_id[(index.modality == modality) & (index.subset == "train")]
        )
        assert set(fold.training) == set(splits.image_id) - set(fold.validation)


def test_by_modality_a_group_that_spans_two_is_held_out_with_most_of_its_images():
    index = make_index([1, 1, 3, 3, 3])
    index.loc[index.group == "002-0", "modality"] = ["pink_purple_tissue", "grey_tissue", "grey_tissue"]
    splits = assign_modalities(index)
    check_splits(splits, index)
    assert set(splits.fold[splits.group == "002-0"]) == set(splits.fold[splits.group == "003-0"])


def test_by_modality_a_modality_that_only_follows_others_leaves_no_empty_fold():
    index = make_index([3, 3])
    index.loc[0, "modality"] = "another"
    splits = assign_modalities(index)
    check_splits(splits, index)
    assert splits.fold.nunique() == 2


def test_by_modality_one_modality_is_refused():
    with pytest.raises(ValueError, match=r"the 3 training images are of 1 modality \(small_fluorescence\)"):
        assign_modalities(make_index([1, 2]).assign(modality="small_fluorescence"))


@pytest.mark.parametrize("n_folds", [1, 0, -2])
def test_fewer_than_two_folds_are_refused(n_folds):
    with pytest.raises(ValueError, match="2 at least"):
        assign_folds(make_index([1] * 10), n_folds, 0)


def tear_group(splits):
    splits.loc[splits.index[0], "fold"] = 1 - splits.fold.iloc[0]


FAULTS = {
    "in more than one fold, such as 000-0|leak": tear_group,
    "no fold": lambda splits: splits.drop(splits.index[0], inplace=True),
    "twice": lambda splits: splits.loc.__setitem__(len(splits), splits.iloc[0]),
    "not in the index's training set, such as nobody": lambda splits: splits.loc.__setitem__(
        len(splits), ["nobody", 0, "nobody", "grey_tissue", 3]
    ),
    "not in the index's training set, such as test-0": lambda splits: splits.loc.__setitem__(
        len(splits), ["test-0", 0, "test-0", "grey_tissue", 3]
    ),
    "another group": lambda splits: splits.loc.__setitem__((splits.index[-1], "group"), "other"),
    r"the folds are \[0, 2\]": lambda splits: splits.loc.__setitem__((splits.fold == 1, "fold"), 2),
    r"the folds are \[0\]": lambda splits: splits.__setitem__("fold", 0),
}


@pytest.mark.parametrize("message", FAULTS)
def test_check_splits_refuses(message):
    index = make_index([4, 1, 1, 2, 1, 1])
    splits = assign_folds(index, 2, 0)
    FAULTS[message](splits)
    with pytest.raises(ValueError, match=message):
        check_splits(splits, index)


def test_the_summary_counts_images_nuclei_and_shared_pictures():
    index = make_index([4, 4, 2, 1, 1])
    splits = assign_folds(index, 2, 0)
    lines = summarise(splits)
    totals = {
        line.split()[0]: [int(word) for word in line.split()[1:]] for line in lines if line.split()[1].isdigit()
    }
    assert sum(totals["images"]) == 12
    assert sum(totals["groups"]) == 5
    assert sum(totals["nuclei"]) == splits.nuclei.sum()
    assert lines[-2:] == ["1 x 2 images from one picture", "2 x 4 images from one picture"]


SPLITS = pd.DataFrame(
    {"image_id": list("abcd"), "fold": [0, 0, 1, 1], "group": list("xxyz"), "modality": list("mmmn")}
)


def test_a_fold_holds_out_its_images():
    fold = choose_fold(SPLITS, 1)
    assert (fold.training, fold.validation) == (["a", "b"], ["c", "d"])


def test_a_fold_of_fewer_images_holds_out_the_same_ones():
    fold = choose_fold(SPLITS, 0, images=1, seed=3)
    assert len(fold.training) == 1
    assert set(fold.training) < {"c", "d"}
    assert fold.validation == ["a", "b"]


def test_an_unknown_fold_is_refused_not_replaced():
    with pytest.raises(ValueError, match=r"fold 7 is unknown: the splits have the folds \[0, 1\]"):
        choose_fold(SPLITS, 7)


def test_a_leak_is_refused():
    with pytest.raises(ValueError, match="both sides of fold 0"):
        choose_fold(SPLITS.assign(group=list("xyyz")), 0)


@pytest.mark.parametrize("seed", [0, 1])
def test_smaller_subsets_lie_within_larger_ones_and_hold_every_modality_in_its_share(seed):
    ids = [f"image{number:03d}" for number in range(100)]
    modalities = ["common"] * 80 + ["rare"] * 20
    subsets = [draw_subset(ids, modalities, count, seed) for count in (8, 16, 32, 64, 100)]
    for smaller, larger in pairwise(subsets):
        assert set(smaller) < set(larger)
    for subset in subsets:
        assert subset == sorted(set(subset))
        rare = sum(image_id >= "image080" for image_id in subset)
        assert abs(rare - 0.2 * len(subset)) <= 1
    assert subsets[-1] == ids


def test_another_seed_draws_other_images_and_too_many_are_refused():
    ids = [f"image{number:03d}" for number in range(50)]
    assert draw_subset(ids, ["any"] * 50, 8, 0) != draw_subset(ids, ["any"] * 50, 8, 1)
    with pytest.raises(ValueError, match=r"training.images = 51, but the fold has 50 images"):
        draw_subset(ids, ["any"] * 50, 51, 0)


def test_the_fold_all_trains_on_every_image_and_has_a_number_of_its_own():
    assert choose_training(SPLITS, "all", None, 0) == Fold(2, list("abcd"), [])
    assert choose_training(SPLITS, "1", None, 0) == choose_fold(SPLITS, 1)
    assert len(choose_training(SPLITS, "all", 2, 0).training) == 2


def test_a_fold_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="fold 'none': give the number of a fold, or all"):
        choose_training(SPLITS, "none", None, 0)


def test_some_folds_are_selected_with_all_test_images():
    index = make_index([1, 1, 4, 2] * 5)
    splits = assign_folds(index, 5, 0)
    some_index, some = select_folds(index, splits, [0, 3])
    assert set(some.image_id) == set(splits.image_id[splits.fold.isin([0, 3])])
    assert some.fold.tolist() == splits.fold[splits.fold.isin([0, 3])].tolist()
    assert set(some_index.image_id[some_index.subset == "train"]) == set(some.image_id)
    assert set(some_index.image_id[some_index.subset == "test"]) == {"test-0", "test-1"}


def test_a_single_fold_is_halved_by_groups():
    splits = assign_folds(make_index([1, 1, 4, 2] * 5), 5, 0)
    _, some = select_folds(make_index([1, 1, 4, 2] * 5), splits, [2])
    assert set(some.fold) == {0, 1}
    assert some.groupby("group").fold.nunique().max() == 1
    with pytest.raises(UserError, match=r"fold 7 is unknown: the splits have the folds \[0, 1, 2, 3, 4\]"):
        select_folds(make_index([1, 1, 4, 2] * 5), splits, [7])
    with pytest.raises(UserError, match="holds out one group"):
        select_folds(make_index([1, 1, 4, 2] * 5), splits.assign(group="one"), [0])


def test_seen_and_unseen_images_are_held_out_together_and_unseen_sources_are_whole():
    rows = []
    for number in range(60):
        source = ("a", "a", "b", "c", "d", "e")[number % 6]
        row = {"image_id": f"i{number:02d}", "subset": "train", "group": f"g{number:02d}", "nuclei": 3}
        rows.append(row | {"source": source, "modality": "tissue" if source == "e" else "cells"})
    index = pd.DataFrame(rows)
    splits = assign_seen_and_unseen(index, 5, 0)
    source = index.set_index("image_id").source
    kinds = {kind: set(source[group.image_id]) for kind, group in splits.groupby("held_out")}
    assert not kinds["unseen"] & (kinds["seen"] | kinds[""])
    assert kinds["seen"] <= kinds[""]
    assert "e" not in kinds["unseen"]  # the only source of its modality
    assert ((splits.fold == 0) == (splits.held_out != "")).all()
