"""Measurements of a trained fold, and the whole comparison by the real Makefile."""

import os
import subprocess
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
from script_runs import run_script

from nuclei.io.files import read_json
from nuclei.reporting.comparison import (
    comparison,
    comparison_page,
    cross_fit,
    dice,
    halve,
    learning_curve,
    score_by_kind,
    update_comparison,
)
from nuclei.reporting.plots import plot_comparison, plot_learning_curve
from nuclei.synthetic.images import make_image

ROOT = Path(__file__).parents[2]


def test_dice_counts_the_shared_pixels_of_all_nuclei_as_one():
    truth = np.zeros((4, 6), np.int32)
    truth[:, :2], truth[:, 2:4] = 1, 2
    maps = np.zeros((3, 4, 6), np.uint8)
    maps[0, :, 2:6] = 200
    assert dice(maps, truth) == pytest.approx(0.5)
    assert dice(np.zeros_like(maps), np.zeros_like(truth)) == 1
    assert dice(maps, np.zeros_like(truth)) == 0


def test_the_halves_share_the_modalities_out_and_keep_groups_together():
    table = pd.DataFrame(
        {"group": [f"g{number // 2:02d}" for number in range(40)], "modality": ["common"] * 32 + ["rare"] * 8}
    )
    first = halve(table)
    assert first[table.modality == "common"].sum() == 16
    assert first[table.modality == "rare"].sum() == 4
    assert not set(table.group[first]) & set(table.group[~first])
    with pytest.raises(ValueError, match="40 held-out images of one group"):
        halve(table.assign(group="same"))


def faint_maps(truth, level):
    """Maps that know every nucleus but are sure of none: foreground and core at `level` of 255."""
    maps = np.zeros((3, *truth.shape), np.uint8)
    maps[0] = maps[2] = np.where(truth > 0, level, 20)
    return maps


def test_a_network_that_sounds_unsure_is_scored_with_the_thresholds_that_the_other_half_favours():
    truths = {f"image{i}": make_image("small_fluorescence", i, 96, 128)[1] for i in range(4)}
    maps = {image_id: faint_maps(truth, 140) for image_id, truth in truths.items()}
    first = np.array([True, False, True, False])
    default, fitted, _ = cross_fit(maps, truths, first)
    assert fitted.mean() > default.mean() + 0.1


@pytest.mark.parametrize("change", [{"confidence": 140}, {"border": 250}, {"confidence": 140, "border": 250}])
def test_a_network_that_finds_nothing_with_the_default_thresholds_is_searched_from_another_start(change):
    truths = {f"image{i}": make_image("small_fluorescence", i, 96, 128)[1] for i in range(4)}
    maps = {name: faint_maps(truth, change.get("confidence", 240)) for name, truth in truths.items()}
    for map_ in maps.values():
        map_[1] = np.where(map_[0] > 20, change.get("border", 0), 0)
    default, fitted, _ = cross_fit(maps, truths, np.array([True, False, True, False]))
    assert default.mean() == 0
    assert fitted.mean() > 0.3


def test_what_one_half_shows_does_not_reach_its_own_score():
    truths = {f"image{i}": make_image("small_fluorescence", i, 96, 128)[1] for i in range(4)}
    first = np.array([True, True, False, False])
    maps = {name: faint_maps(truth, 140 if i < 2 else 240) for i, (name, truth) in enumerate(truths.items())}
    default, fitted, _ = cross_fit(maps, truths, first)
    # the sure half finds nothing to change, so that the unsure one gets the default thresholds,
    # which miss its nuclei
    np.testing.assert_allclose(fitted[first], default[first])


def make_measured(name, scores, seed=0, images=10):
    return {
        "experiment": name, "image_score": dict(zip("abcd", scores, strict=True)), "score": float(np.mean(scores)),
        "score_default": 0.1, "dice": 0.8, "parameters": 1_080_963, "multiply_adds": 2_500_000_000,
        "training_speed": 9.5, "inference_speed": 4.5, "peak_mib": 900, "minutes": 3.25, "seed": seed, "steps": 7,
        "batch": "8 crops of 192 pixels", "training_images": images, "hardware": "1 cpu threads", "commit": "12345678",
    }  # fmt: skip


def test_the_page_ranks_the_variants_and_gives_their_difference_to_the_plain_one(tmp_path):
    measured = [
        make_measured("unet_plain", [0.2, 0.3, 0.4, 0.5]),
        make_measured("unet_se", [0.3, 0.4, 0.5, 0.6]),
    ]
    frame = comparison(measured).assign(command="make compare STEPS=7")
    assert list(frame.experiment) == ["unet_se", "unet_plain"]
    row = frame.iloc[0]
    assert (row.against, row.against_low, row.against_high) == pytest.approx((0.1, 0.1, 0.1))
    page = comparison_page({"compare": frame}, str.upper)
    assert "`make compare STEPS=7`: 7 steps of 8 crops of 192 pixels, one fold held out (4 images)" in page
    assert "| `unet_se` | UNET_SE | **0.450** (" in page
    assert "| +0.100 (+0.100 to +0.100) | 0.100 | 0.800 | 1.08 M | 2.50 G | 9.5 | 4.5 | 900 MiB | 3.2 |" in page
    for name in ("one.svg", "two.svg"):
        plot_comparison(tmp_path / name, frame)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_the_learning_curve_has_mean_and_spread_of_each_number_of_images(tmp_path):
    runs = [(8, 0.1), (8, 0.3), (16, 0.4), (16, 0.6)]
    measured = [make_measured(f"r{i}", [score] * 4, i % 2, images) for i, (images, score) in enumerate(runs)]
    frame = comparison(measured).assign(command="make learning-curve")
    curve = learning_curve(frame)
    assert list(curve.training_images) == [8, 16]
    np.testing.assert_allclose(curve.score, [0.2, 0.5])
    np.testing.assert_allclose(curve.score_spread, [np.sqrt(0.02)] * 2)
    assert "| 8 | 2 | 0.200 | 0.141 | 0.100 | 0.300 |" in comparison_page({"learning_curve": frame}, str)
    plot_learning_curve(tmp_path / "curve.svg", frame)
    assert (tmp_path / "curve.svg").read_text().startswith("<?xml")


def test_the_learning_curve_shows_seen_and_unseen_sources_beside_each_other(tmp_path):
    runs = [(8, 0.3, 0.1), (8, 0.5, 0.2), (16, 0.6, 0.25)]
    measured = [
        make_measured(f"r{i}", [0.4] * 4, i, images) | {"seen": seen, "unseen": unseen}
        for i, (images, seen, unseen) in enumerate(runs)
    ]
    frame = comparison(measured).assign(command="make learning-curve")
    page = comparison_page({"learning_curve": frame}, str)
    assert "| seen sources | spread | unseen sources | spread |" in page
    assert "| 0.400 | 0.141 | 0.150 | 0.071 |" in page
    plot_learning_curve(tmp_path / "curve.svg", frame)
    assert "unseen sources" in (tmp_path / "curve.svg").read_text()


def test_scores_by_kind_are_means_over_the_images_of_each():
    truths = {f"image{i}": make_image("small_fluorescence", i, 64, 64)[1] for i in range(3)}
    maps = {image_id: faint_maps(truth, 250) for image_id, truth in truths.items()}
    maps["image2"] = np.zeros_like(maps["image2"])
    found = score_by_kind(maps, truths, {"image0": "seen", "image1": "seen", "image2": "unseen"})
    assert found["seen"] > 0.5
    assert found["unseen"] == 0
    assert score_by_kind(maps, truths, {}) == {}


def test_two_tables_written_at_the_same_time_are_both_on_the_page(tmp_path):
    frames = [
        comparison([make_measured(name, [0.2, 0.3, 0.4, 0.5])]).assign(command=command)
        for name, command in (("unet_plain", "make compare"), ("images_8", "make learning-curve"))
    ]
    second = Thread(target=update_comparison, args=(tmp_path, "learning_curve", frames[1], Path.touch, str))

    def draw_slowly(path):
        second.start()
        second.join(0.5)
        path.touch()

    update_comparison(tmp_path, "compare", frames[0], draw_slowly, str)
    second.join()
    page = (tmp_path / "README.md").read_text()
    assert "`make compare`" in page
    assert "`make learning-curve`" in page


def test_make_compares_variants_and_numbers_of_images_and_then_has_nothing_to_do(tmp_path, warm_python):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    assert run_script("generate.py", "--out", tmp_path / "archive", "--train", 20, "--test", 1).returncode == 0
    settings = [f"{name.upper()}={tmp_path / name}" for name in ("data", "runs", "comparisons")]
    settings += [
        f"SOURCE={tmp_path / 'archive'}",
        "SPLIT_INTO=2",
        f"PYTHON={warm_python}",
        "DEVICE=cpu",
        "WORKERS=0",
    ]
    settings += ["STEPS=1", "VARIANTS=unet_add", "COUNTS=3 all", "SEEDS=1"]
    command = ["make", "--no-print-directory", "-C", str(ROOT), *settings]
    answer = subprocess.run(
        [*command, "compare", "learning-curve"], capture_output=True, text=True, env=environment
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    page = (tmp_path / "comparisons/README.md").read_text()
    assert "`make compare STEPS=1" in page
    assert "`make learning-curve STEPS=1" in page
    curve = pd.read_csv(tmp_path / "comparisons/learning_curve.csv").set_index("experiment")
    assert curve.training_images["images_3_seed_1"] == 3
    assert curve.training_images["images_all_seed_1"] + curve.images["images_all_seed_1"] == 20
    assert set(curve.seed) == {1}
    measured = read_json(tmp_path / "runs/compare/1_steps/unet_add/measured.json")
    assert measured["parameters"] == 885_123
    assert 100 < measured["peak_mib"] < 20_000
    assert (
        subprocess.run([*command, "--question", "compare", "learning-curve"], env=environment).returncode == 0
    )
