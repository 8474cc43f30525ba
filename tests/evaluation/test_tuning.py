"""Tuning: no leak by construction, the same with any number of workers, better than none."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from script_runs import run_script

from nuclei.data.prepared_images import Images
from nuclei.data.targets import energy_target
from nuclei.errors import UserError
from nuclei.evaluation import tuning
from nuclei.evaluation.metric import average_precision
from nuclei.evaluation.score_cache import Scores
from nuclei.evaluation.scores import read_tuned_score, score_image, score_otsu
from nuclei.evaluation.tuning import GRID, HALF_STEPS, START, cross_validate, search, segment_test
from nuclei.io.files import read_json, write_csv, write_json
from nuclei.io.images import write_label_map
from nuclei.io.parallel import open_pool
from nuclei.io.probability_maps import Maps, write_maps
from nuclei.postprocessing.parameters import Parameters, Tuned
from nuclei.postprocessing.watershed import segment_maps
from nuclei.synthetic.images import make_image

ROOT = Path(__file__).parents[2]
IMAGES, FOLDS, SIZE = 12, 3, 64


def make_maps(label_map, number):
    """Maps of a network that sees every nucleus too large and is unsure of it, with noise."""
    target = energy_target(label_map, 0.15, 4.0)
    maps = np.stack([cv2.GaussianBlur(channel, (0, 0), 1.5) for channel in target])
    noise = np.random.default_rng(number).normal(0, 0.04, maps.shape)
    noisy = maps * [[[1.7]], [[1.0]], [[0.9]]] + noise
    return np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder with processed/, splits.csv and oof.npz of twelve images in three folds."""
    return make_run(tmp_path_factory.mktemp("run"))


def make_run(folder, poisoned_fold=None):
    """A run; in the poisoned fold the annotation shows every nucleus far too large."""
    truths = [make_image("small_fluorescence", number, SIZE, SIZE)[1] for number in range(IMAGES)]
    ids = [f"image{number:02d}" for number in range(IMAGES)]
    rows, splits = [], []
    for number, image_id in enumerate(ids):
        fold, modality = number % FOLDS, "small_fluorescence" if number < 8 else "grey_tissue"
        truth = truths[number]
        if fold == poisoned_fold:
            truth = cv2.dilate(truth.astype(np.float32), np.ones((7, 7), np.uint8)).astype(np.int32)
        write_label_map(folder / "processed" / "labels" / f"{image_id}.png", truth)
        rows.append({"image_id": image_id, "subset": "train", "image": "", "label": f"labels/{image_id}.png"})
        rows[-1] |= {
            "height": SIZE,
            "width": SIZE,
            "nuclei": truth.max(),
            "modality": modality,
            "group": image_id,
        }
        splits.append(
            {"image_id": image_id, "fold": fold, "group": image_id, "modality": modality, "nuclei": 1}
        )
    write_csv(folder / "processed" / "index.csv", pd.DataFrame(rows))
    write_csv(folder / "splits.csv", pd.DataFrame(splits))
    write_maps(
        folder / "oof.npz", [(ids[number], make_maps(truths[number], number)) for number in range(IMAGES)]
    )
    return folder


def tune(folder, workers=1):
    return cross_validate("demo", folder / "oof.npz", folder / "processed", folder / "splits.csv", workers)


@pytest.fixture(scope="module")
def summary(run):
    return tune(run).to_dict()


def test_tuning_helps_on_maps_that_need_it(summary):
    assert summary["score"] > summary["score_default_parameters"] + 0.02
    assert summary["parameters"] != START.to_dict()


def test_the_result_does_not_depend_on_the_number_of_workers(run, summary):
    assert json.dumps(tune(run, workers=2).to_dict()) == json.dumps(summary)


def test_what_is_chosen_for_a_fold_never_depends_on_its_own_annotation(tmp_path, summary):
    changed_elsewhere = False
    for fold in range(FOLDS):
        poisoned = tune(make_run(tmp_path / str(fold), poisoned_fold=fold)).to_dict()["fold"]
        for other, chosen in summary["fold"].items():
            if other == str(fold):
                assert poisoned[other]["parameters"] == chosen["parameters"]
                assert poisoned[other]["score"] < chosen["score"]
            else:
                changed_elsewhere |= poisoned[other]["parameters"] != chosen["parameters"]
    assert changed_elsewhere, "the poison has no effect, so this test shows nothing"


def test_each_image_is_scored_with_its_own_folds_parameters(run, summary):
    images, maps = Images(run / "processed"), Maps(run / "oof.npz")
    for image_id, record in summary["image"].items():
        parameters = Parameters.from_dict(summary["fold"][str(record["fold"])]["parameters"])
        predicted = segment_maps(maps[image_id], parameters)
        ap = average_precision(images.label_map(image_id), predicted)
        assert record["ap"] == pytest.approx(ap, abs=1e-6)
        assert record["predicted"] == predicted.max()
        assert record["nuclei"] == images.label_map(image_id).max()


def test_a_modality_gets_parameters_of_its_own_where_they_pay_and_is_scored_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "MIN_MODALITY_IMAGES", 2)
    folder = make_run(tmp_path)
    images, maps = Images(folder / "processed"), Maps(folder / "oof.npz")
    for image_id in images.index.image_id[images.index.modality == "grey_tissue"]:
        # in these, the annotators drew wide
        wider = cv2.dilate(images.label_map(image_id).astype(np.float32), np.ones((5, 5), np.uint8))
        write_label_map(folder / "processed" / "labels" / f"{image_id}.png", wider.astype(np.int32))
    summary = tune(folder).to_dict()
    tuned = Tuned.from_dict(summary["parameters"])
    assert set(tuned.modality) == {"grey_tissue"}
    assert (
        tuned.of("grey_tissue").foreground_threshold
        < tuned.general.foreground_threshold
        == tuned.of("anything").foreground_threshold
    )
    for image_id, record in summary["image"].items():
        of_fold = Tuned.from_dict(summary["fold"][str(record["fold"])]["parameters"])
        parameters = of_fold.of(record["modality"])
        predicted = segment_maps(maps[image_id], parameters)
        ap = average_precision(images.label_map(image_id), predicted)
        assert record["ap"] == pytest.approx(ap, abs=1e-6)
    assert dict(segment_test(folder / "oof.npz", tuned, {"image09": "grey_tissue"}))["image09"].max() == (
        segment_maps(maps["image09"], tuned.of("grey_tissue")).max()
    )


def test_the_parts_add_up_to_the_whole(summary):
    assert summary["n_images"] == len(summary["image"]) == IMAGES
    assert summary["score"] == pytest.approx(np.mean([r["ap"] for r in summary["image"].values()]), abs=1e-5)
    assert summary["score"] == pytest.approx(np.mean(list(summary["ap"].values())), abs=1e-5)
    for parts in (summary["fold"], summary["modality"]):
        weighted = sum(part["score"] * part["images"] for part in parts.values()) / IMAGES
        assert weighted == pytest.approx(summary["score"], abs=1e-5)
        assert sum(part["errors"]["hits"] for part in parts.values()) == summary["errors"]["hits"]
    assert list(summary["ap"]) == [f"{percent / 100:.2f}" for percent in range(50, 100, 5)]


def test_perfect_maps_score_near_1_and_the_scale_of_the_scores_is_that_of_the_metric(tmp_path):
    folder = make_run(tmp_path)
    images = Images(folder / "processed")
    perfect = ((i, energy_target(images.label_map(i), 0.15, 4.0)) for i in images.ids("train"))
    write_maps(folder / "oof.npz", ((i, np.round(maps * 255).astype(np.uint8)) for i, maps in perfect))
    assert tune(folder).score > 0.95


class CountingScores(Scores):
    """Scores made up by a function of parameters and image, with a record of what was asked for."""

    def __init__(self, function, count):
        self.asked = []

        def work(jobs):
            for image_id, candidates in jobs:
                self.asked += [(int(image_id), candidate) for candidate in candidates]
                yield [np.full(10, function(candidate, int(image_id))) for candidate in candidates]

        super().__init__([str(number) for number in range(count)], work)


def test_the_search_finds_the_top_of_a_hill_between_the_grid_values_and_asks_nothing_twice():
    def hill(parameters, _):
        return (
            -abs(parameters.foreground_threshold - 0.35)
            - abs(parameters.seed_threshold - 0.7)
            - abs(parameters.min_area - 40) / 100
        )

    scores = CountingScores(hill, 120)
    best = search(scores, np.arange(120), np.arange(0, 120, 2))
    assert (best.foreground_threshold, best.seed_threshold, best.min_area) == (0.35, 0.7, 40)
    assert len(scores.asked) == len(set(scores.asked))


def test_the_search_looks_at_no_image_outside_its_rows():
    scores = CountingScores(lambda parameters, image: parameters.foreground_threshold * image, 150)
    rows = np.flatnonzero(np.arange(150) % 5 != 3)
    search(scores, rows, np.arange(150))
    assert {image for image, _ in scores.asked} <= set(rows.tolist())


def test_a_gain_within_the_scatter_over_the_images_is_not_followed():
    def luck(parameters, image):
        return (0.5 + 0.01 * image % 0.07) * (
            1 if (image + int(100 * parameters.foreground_threshold)) % 2 else -1
        )

    assert search(CountingScores(luck, 40), np.arange(40), np.arange(40)) == START


def test_the_search_starts_on_its_grid():
    defaults = START.to_dict()
    # what holds for images unlike those of the training cannot be searched on these
    assert set(GRID) == set(defaults) - {"min_certainty"}
    assert all(defaults[name] in values and list(values) == sorted(values) for name, values in GRID.items())
    assert set(HALF_STEPS) <= set(GRID)


def test_the_coarse_sample_keeps_the_modalities_in_proportion(monkeypatch):
    monkeypatch.setattr(tuning, "COARSE_IMAGES", 50)
    modality = ["a"] * 150 + ["b"] * 40 + ["c"] * 10
    table = pd.DataFrame({"image_id": [f"{n:03}" for n in range(200)], "fold": 0, "modality": modality})
    counts = table.modality[tuning._stratified_sample(table)].value_counts()
    assert counts.sum() == 50
    assert abs(counts["a"] - 37.5) <= 1
    assert abs(counts["b"] - 10) <= 1
    assert counts["c"] >= 2


def test_maps_that_do_not_fit_the_splits_are_refused(tmp_path):
    folder = make_run(tmp_path)
    splits = pd.read_csv(folder / "splits.csv")
    write_csv(folder / "splits.csv", splits[splits.image_id != "image03"])
    with pytest.raises(ValueError, match=r"lacks 0 of the 11 images .* holds 1 others \['image03'\]"):
        tune(folder)
    write_csv(folder / "splits.csv", splits.assign(fold=0))
    with pytest.raises(ValueError, match="1 fold; tuning needs at least two"):
        tune(folder)
    write_csv(folder / "splits.csv", splits)
    write_maps(folder / "oof.npz", [(image_id, np.zeros((3, 5, 5), np.uint8)) for image_id in splits.image_id])
    for workers in (1, 2):
        with pytest.raises(
            ValueError, match=r"maps of image image\d\d are \(3, 5, 5\), its label map .* \(64, 64\)"
        ):
            tune(folder, workers)


def test_a_submission_needs_tuned_parameters(tmp_path):
    otsu = {"experiment": "otsu", "n_images": 1, "score": 0.5, "parameters": None}
    write_json(tmp_path / "cv.json", otsu)
    with pytest.raises(UserError, match="holds no post-processing parameters"):
        _ = read_tuned_score(tmp_path / "cv.json").tuned


def end(_):
    return os._exit


def test_a_worker_that_the_system_ends_is_reported():
    with pytest.raises(ValueError, match="out of memory"), open_pool(2, end, None) as work:
        list(work([1]))
    with pytest.raises(ValueError, match="at least one worker"), open_pool(0, end, None) as work:
        list(work([1]))


FORKED = """
import cv2, numpy as np
from nuclei.io.parallel import open_pool
cv2.setNumThreads(2)
cv2.blur(np.zeros((4000, 4000), np.uint8), (9, 9))
with open_pool(2, lambda: abs) as work:
    assert list(work([-1, -2])) == [1, 2]
assert cv2.getNumThreads() == 2
"""


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="processes are forked on Linux alone")
def test_workers_start_beside_threads_of_opencv():
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=120)


def test_otsu_is_scored_in_the_same_shape(processed, tmp_path, summary):
    ids = [f"image{number:02d}" for number in range(8)]
    splits = pd.DataFrame({"image_id": ids, "fold": [0, 1] * 4, "group": ids, "modality": "x", "nuclei": 1})
    write_csv(tmp_path / "splits.csv", splits)
    otsu = score_otsu("otsu", processed, tmp_path / "splits.csv").to_dict()
    assert set(otsu) == set(summary)
    assert set(otsu["image"]["image00"]) == set(summary["image"]["image00"])
    assert otsu["parameters"] is None
    assert otsu["fold"]["1"]["parameters"] is None
    assert json.dumps(score_otsu("otsu", processed, tmp_path / "splits.csv", 2).to_dict()) == json.dumps(otsu)


def test_a_record_counts_merged_and_split_nuclei():
    truth = np.zeros((20, 40), np.int32)
    truth[5:15, 5:15], truth[5:15, 15:25], truth[5:15, 28:38] = 1, 2, 3
    predicted = np.where(np.isin(truth, [1, 2]), 1, 0).astype(np.int32)
    predicted[5:15, 28:33], predicted[5:15, 33:38] = 2, 3
    record = score_image(truth, predicted)
    assert (record.nuclei, record.predicted, record.merged, record.split) == (3, 3, 1, 1)
    assert record.ap == [0.0] * 10


def test_the_scripts_go_from_maps_to_a_valid_submission(tmp_path, processed):
    images = Images(processed)
    train, test = images.ids("train"), images.ids("test")
    ids = pd.DataFrame({"image_id": train, "fold": [0, 1] * 4, "group": train, "modality": "x", "nuclei": 1})
    write_csv(tmp_path / "splits.csv", ids)
    truths = {image_id: images.label_map(image_id) for image_id in train}
    write_maps(tmp_path / "x" / "oof.npz", ((image_id, make_maps(truths[image_id], 0)) for image_id in train))
    write_maps(tmp_path / "x" / "test.npz", ((image_id, make_maps(truths[train[0]], 1)) for image_id in test))
    common = ["--processed", str(processed)]
    cv, out = ["--cv", str(tmp_path / "x" / "cv.json")], tmp_path / "submissions" / "x.csv"
    maps = [str(tmp_path / "x" / "oof.npz"), str(tmp_path / "x" / "test.npz")]

    def script(name, *arguments):
        return run_script(f"{name}.py", *common, *arguments)

    tuned = script(
        "tune", "--maps", maps[0], "--splits", str(tmp_path / "splits.csv"), "--out", cv[1], "--workers", "1"
    )
    summary = read_json(tmp_path / "x" / "cv.json")
    assert tuned.stdout.splitlines()[-1] == f"x: score {summary['score']:.4f}", tuned.stderr
    made = script("make_submission", "--maps", maps[1], *cv, "--out", str(out))
    assert f"{out}: " in made.stdout, made.stderr
    assert out.read_text().splitlines()[0] == "ImageId,EncodedPixels"
    refused = script("make_submission", "--maps", maps[0], *cv, "--out", str(tmp_path / "y.csv"))
    assert refused.returncode == 1
    assert "holds no maps of image" in refused.stderr
    assert not (tmp_path / "y.csv").exists()
