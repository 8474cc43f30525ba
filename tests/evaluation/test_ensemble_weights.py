"""How much each member counts, on maps whose quality is known."""

import numpy as np
import pandas as pd
import pytest

from nuclei.evaluation.ensemble_weights import find_shares, read_general, read_shares, search_shares
from nuclei.evaluation.score_cache import Scores
from nuclei.io.files import write_json
from nuclei.io.probability_maps import write_maps


def make_maps(truth, hidden, seed):
    """Foreground and core of a label map; of a share of the nuclei the network is unsure."""
    labels = np.unique(truth)[1:]
    kept = np.random.default_rng(seed).random(len(labels)) >= hidden
    seen = np.isin(truth, labels[kept])
    maps = np.zeros((3, *truth.shape), np.uint8)
    maps[0] = maps[2] = np.where(seen, 250, np.where(truth > 0, 120, 0))
    return maps


@pytest.fixture
def members(images, tmp_path):
    """Two members of the generated training images: one that sees all nuclei, one that is unsure of most."""
    ids = images.ids("train")
    splits = tmp_path / "splits.csv"
    folds = [place % 2 for place in range(len(ids))]
    columns = {"image_id": ids, "fold": folds, "group": ids, "modality": "any", "nuclei": 1}
    pd.DataFrame(columns).to_csv(splits, index=False)
    for name, hidden in (("good", 0.0), ("poor", 0.7)):
        maps = ((image_id, make_maps(images.label_map(image_id), hidden, seed)) for seed, image_id in enumerate(ids))
        (tmp_path / name).mkdir()
        write_maps(tmp_path / name / "oof.npz", maps)
    return {name: tmp_path / name / "oof.npz" for name in ("good", "poor")}, splits, dict(zip(ids, folds, strict=True))


def test_the_better_member_counts_more(images, members):
    paths, splits, _ = members
    found = find_shares(paths, images.folder, splits)
    assert found["shares"]["all"]["good"] > found["shares"]["all"]["poor"]
    assert found["score"] > found["score_alike"] + 0.1
    swapped = find_shares(dict(reversed(paths.items())), images.folder, splits, workers=2)
    assert swapped["shares"]["all"]["good"] > swapped["shares"]["all"]["poor"]


def test_the_shares_of_a_fold_do_not_hang_on_its_images(images, members, tmp_path):
    paths, splits, folds = members
    before = find_shares(paths, images.folder, splits)
    empty = ((id_, np.zeros((3, *images.label_map(id_).shape), np.uint8)) for id_, fold in folds.items() if fold == 0)
    rest = ((id_, make_maps(images.label_map(id_), 0.0, 0)) for id_, fold in folds.items() if fold == 1)
    (tmp_path / "changed").mkdir()
    changed = tmp_path / "changed" / "oof.npz"
    write_maps(changed, [*empty, *rest])
    after = find_shares({"good": changed, "poor": paths["poor"]}, images.folder, splits)
    assert before["fold"]["0"] == after["fold"]["0"]
    assert before["fold"]["1"] != after["fold"]["1"]


def test_an_image_gets_the_shares_of_its_fold_and_modality_and_a_test_image_those_of_all_folds(tmp_path):
    path, splits, index = tmp_path / "shares.json", tmp_path / "splits.csv", tmp_path / "index.csv"
    images = pd.DataFrame(
        {"image_id": ["a", "b", "t"], "subset": ["train", "train", "test"], "modality": ["m", "n", "m"]}
    )
    images = images.assign(image="", label="", height=1, width=1, nuclei=1, group=images.image_id)
    images.to_csv(index, index=False)
    images[:2].assign(fold=[0, 1])[["image_id", "fold", "group", "modality", "nuclei"]].to_csv(splits, index=False)
    found = {"all": {"x": 1.0, "y": 8.0}, "m": {"x": 1.0, "y": 2.0}}
    folds = {"0": {"all": {"x": 1.0, "y": 4.0}}, "1": {"all": {"x": 3.0, "y": 1.0}, "n": {"x": 5.0, "y": 1.0}}}
    write_json(path, {"shares": found, "fold": folds})
    assert read_general(path, ["y", "x"]) == (8.0, 1.0)
    assert read_shares(path, ["y", "x"], index) == {"a": (2.0, 1.0), "b": (8.0, 1.0), "t": (2.0, 1.0)}
    by_fold = read_shares(path, ["x", "y"], index, splits)
    assert (by_fold["a"], by_fold["b"]) == ((1.0, 4.0), (5.0, 1.0))
    with pytest.raises(ValueError, match=r"shares of \['x', 'y'\], but the maps are of \['x'\]"):
        read_general(path, ["x"])
    write_json(path, {"shares": found, "fold": {"0": folds["0"]}})
    with pytest.raises(ValueError, match=r"no shares for the folds \['1'\]"):
        read_shares(path, ["x", "y"], index, splits)


def test_a_modality_in_which_the_order_is_another_gets_shares_of_its_own():
    modalities = pd.Series(["fluorescence"] * 30 + ["tissue"] * 12)

    def run(jobs):
        for image_id, candidates in jobs:
            better = 0 if int(image_id) < 30 else 1
            yield [np.full(10, shares[better] / sum(shares)) for shares in candidates]

    scores = Scores([str(place) for place in range(42)], run)
    found = search_shares(scores, np.arange(42), 2, modalities)
    assert found == {"all": (1.0, 0.125), "tissue": (1.0, 8.0)}


def test_shares_of_one_member_are_refused(images, members):
    paths, splits, _ = members
    with pytest.raises(ValueError, match="give the maps of two or more"):
        find_shares({"good": paths["good"]}, images.folder, splits)
