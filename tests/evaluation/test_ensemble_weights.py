"""How much each member counts, on maps whose quality is known."""

import numpy as np
import pandas as pd
import pytest

from nuclei.errors import UserError
from nuclei.evaluation.ensemble_weights import (
    EnsembleWeights,
    read_general_weights,
    read_weights_by_image,
    search_weights,
    tune_weights,
)
from nuclei.evaluation.score_cache import Scores
from nuclei.io.files import write_json
from nuclei.io.probability_maps import write_maps

SCORES = {"n_images": 2, "score": 0.5, "score_equal": 0.4}


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
    """Two members on the generated training images: one sees all nuclei, one is unsure of most."""
    ids = images.ids("train")
    splits = tmp_path / "splits.csv"
    folds = [place % 2 for place in range(len(ids))]
    columns = {"image_id": ids, "fold": folds, "group": ids, "modality": "any", "nuclei": 1}
    pd.DataFrame(columns).to_csv(splits, index=False)
    for name, hidden in (("good", 0.0), ("poor", 0.7)):
        maps = (
            (image_id, make_maps(images.label_map(image_id), hidden, seed)) for seed, image_id in enumerate(ids)
        )
        (tmp_path / name).mkdir()
        write_maps(tmp_path / name / "oof.npz", maps)
    return (
        {name: tmp_path / name / "oof.npz" for name in ("good", "poor")},
        splits,
        dict(zip(ids, folds, strict=True)),
    )


def test_the_better_member_counts_more(images, members):
    paths, splits, _ = members
    found = tune_weights(paths, images.folder, splits)
    assert found.weights["all"]["good"] > found.weights["all"]["poor"]
    assert found.score > found.score_equal
    swapped = tune_weights(dict(reversed(paths.items())), images.folder, splits, workers=2)
    assert swapped.weights["all"]["good"] > swapped.weights["all"]["poor"]


def test_the_weights_of_a_fold_do_not_depend_on_its_images(images, members, tmp_path):
    paths, splits, folds = members
    before = tune_weights(paths, images.folder, splits)
    empty = (
        (id_, np.zeros((3, *images.label_map(id_).shape), np.uint8)) for id_, fold in folds.items() if fold == 0
    )
    rest = ((id_, make_maps(images.label_map(id_), 0.0, 0)) for id_, fold in folds.items() if fold == 1)
    (tmp_path / "changed").mkdir()
    changed = tmp_path / "changed" / "oof.npz"
    write_maps(changed, [*empty, *rest])
    after = tune_weights({"good": changed, "poor": paths["poor"]}, images.folder, splits)
    assert before.fold["0"] == after.fold["0"]
    assert before.fold["1"] != after.fold["1"]


def test_an_image_gets_the_weights_of_its_fold_and_modality_and_a_test_image_those_of_all_folds(tmp_path):
    path, splits, index = tmp_path / "ensemble_weights.json", tmp_path / "splits.csv", tmp_path / "index.csv"
    images = pd.DataFrame(
        {"image_id": ["a", "b", "t"], "subset": ["train", "train", "test"], "modality": ["m", "n", "m"]}
    )
    images = images.assign(image="", label="", height=1, width=1, nuclei=1, group=images.image_id)
    images.to_csv(index, index=False)
    images[:2].assign(fold=[0, 1])[["image_id", "fold", "group", "modality", "nuclei"]].to_csv(
        splits, index=False
    )
    found = {"all": {"x": 1.0, "y": 8.0}, "m": {"x": 1.0, "y": 2.0}}
    folds = {"0": {"all": {"x": 1.0, "y": 4.0}}, "1": {"all": {"x": 3.0, "y": 1.0}, "n": {"x": 5.0, "y": 1.0}}}
    write_json(path, {"weights": found, "fold": folds, **SCORES})
    assert read_general_weights(path, ["y", "x"]) == (8.0, 1.0)
    assert read_weights_by_image(path, ["y", "x"], index) == {"a": (2.0, 1.0), "b": (8.0, 1.0), "t": (2.0, 1.0)}
    by_fold = read_weights_by_image(path, ["x", "y"], index, splits)
    assert (by_fold["a"], by_fold["b"]) == ((1.0, 4.0), (5.0, 1.0))
    with pytest.raises(ValueError, match=r"ensemble weights of \['x', 'y'\], but the maps are of \['x'\]"):
        read_general_weights(path, ["x"])
    write_json(path, {"weights": found, "fold": {"0": folds["0"]}, **SCORES})
    with pytest.raises(ValueError, match=r"no ensemble weights for the folds \['1'\]"):
        read_weights_by_image(path, ["x", "y"], index, splits)


def test_a_modality_in_which_the_order_is_another_gets_weights_of_its_own():
    modalities = pd.Series(["fluorescence"] * 30 + ["tissue"] * 12)

    def run(jobs):
        for image_id, candidates in jobs:
            better = 0 if int(image_id) < 30 else 1
            yield [np.full(10, weights[better] / sum(weights)) for weights in candidates]

    scores = Scores([str(place) for place in range(42)], run)
    found = search_weights(scores, np.arange(42), 2, modalities)
    assert found == {"all": (1.0, 0.125), "tissue": (1.0, 8.0)}


def test_weights_of_one_member_are_refused(images, members):
    paths, splits, _ = members
    with pytest.raises(ValueError, match="give the maps of two or more"):
        tune_weights({"good": paths["good"]}, images.folder, splits)


def test_a_file_of_before_is_read_under_its_old_names():
    weights = {"all": {"x": 1.0, "y": 0.5}}
    old = {"shares": weights, "fold": {"0": weights}, "n_images": 2, "score": 0.5, "score_alike": 0.4}
    found = EnsembleWeights.model_validate(old)
    assert found.model_dump(mode="json") == {"weights": weights, "fold": {"0": weights}, **SCORES}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": {"grey_tissue": {"x": 1.0, "y": 0.5}}}, "expected weights of"),
        ({"fold": {"0": {"all": {"x": 1.0}}}}, r"expected weights of \['x', 'y'\] everywhere"),
        ({"weights": {"all": {"x": 1.0, "y": -1.0}}}, "weights.all.y = -1.0: Input should be greater than 0"),
        ({"weights": {"all": {"`x`": 1.0}}}, "'`x`' is not a valid name"),
        ({"score": float("nan")}, "not valid JSON"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path, change, said):
    weights = {"all": {"x": 1.0, "y": 0.5}}
    path = tmp_path / "ensemble_weights.json"
    write_json(path, {"weights": weights, "fold": {"0": weights}, **SCORES, **change})
    with pytest.raises(UserError, match=said) as caught:
        read_general_weights(path, ["x", "y"])
    assert "\n" not in str(caught.value)
