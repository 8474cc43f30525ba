"""Ablation: the table of measured steps, and all of it by the real Makefile."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from script_runs import run_script

from nuclei.io.files import write_json
from nuclei.io.tables import read_splits
from nuclei.reporting.ablation import FOLDS, MODALITIES, StepScores, ablation, ablation_page, read_steps

ROOT = Path(__file__).parents[2]


def make_measured(scores, trained="", modalities="ssp"):
    """A step with one score at every threshold, on images a, b, c of modalities s, s and p."""
    effort = {"experiment": trained, "parameters": 1_080_963, "minutes": 1.25, "seed": 0, "steps": 7}
    effort |= {"batch": "8 crops of 192 pixels", "hardware": "1 cpu threads", "commit": "12345678"}
    records = zip("abc", scores, modalities, strict=False)
    return StepScores({name: {"ap": [score] * 10, "modality": m} for name, score, m in records}, [effort])


def test_a_step_adds_its_mean_paired_difference_to_the_step_before():
    frame = ablation(
        {FOLDS: {"2_b": make_measured([0.3, 0.4, 0.8], "2_b"), "1_a": make_measured([0.2, 0.3, 0.4])}}
    )
    assert list(frame.ablation_step) == ["1_a", "2_b"]
    before, row = frame.iloc[0], frame.iloc[1]
    assert np.isnan(before.difference)
    assert row.score == pytest.approx(0.5)
    assert row["ap_0.75"] == pytest.approx(0.5)
    assert row.difference == pytest.approx(0.2)
    assert 0.099 < row.difference_low < row.difference < row.difference_high < 0.401


def test_modalities_have_their_own_means_and_are_weighted_equally_in_the_mean_of_modalities():
    row = ablation({FOLDS: {"1_a": make_measured([0.2, 0.4, 0.8])}}).iloc[0]
    assert (row.s, row.p) == pytest.approx((0.3, 0.8))
    assert row.modality_mean == pytest.approx(0.55)
    assert row.score == pytest.approx(1.4 / 3)


def test_steps_of_the_two_kinds_of_held_out_images_are_not_compared_with_each_other():
    kinds = {FOLDS: {"1_a": make_measured([0.2, 0.3])}, MODALITIES: {"1_a": make_measured([0.1, 0.2, 0.3])}}
    frame = ablation(kinds)
    assert list(frame.held_out) == [FOLDS, MODALITIES]
    assert frame.difference.isna().all()
    assert np.isnan(frame.p[0])
    assert frame.p[1] == pytest.approx(0.3)


def test_steps_scored_on_different_images_are_refused():
    with pytest.raises(
        ValueError, match=r"folds: 2_b was scored on 2 images, the step before it on 3.* one FOLDS"
    ):
        ablation({FOLDS: {"1_a": make_measured([0.2, 0.3, 0.4]), "2_b": make_measured([0.2, 0.3])}})


def test_no_scores_at_all_are_refused_with_what_to_give():
    with pytest.raises(ValueError, match="at least one of FOLDS or MODALITIES"):
        ablation({FOLDS: {}, MODALITIES: {}})


def test_the_files_of_a_step_are_joined_and_what_is_missing_or_there_twice_is_named(tmp_path):
    paths = [tmp_path / "0.json", tmp_path / "1.json"]
    for path, name in zip(paths, "ab", strict=True):
        one = make_measured([0.5])
        write_json(path, {"experiment": "1_a", "image": {name: one.images["a"]}, "effort": one.efforts[0]})
    write_json(
        tmp_path / "cv.json", {"experiment": "2_b", "image": {}, "score": 0.5}
    )  # tuned: no training of its own
    joined = read_steps([*paths, tmp_path / "cv.json"])
    assert set(joined["1_a"].images) == {"a", "b"}
    assert (len(joined["1_a"].efforts), len(joined["2_b"].efforts)) == (2, 0)
    with pytest.raises(ValueError, match=r"2\.json: no such scores; `make ablation`"):
        read_steps([tmp_path / "2.json"])
    with pytest.raises(ValueError, match=r"0\.json: image a is in another fold of 1_a too"):
        read_steps([paths[0], paths[0]])


def test_the_page_says_what_was_run_and_has_a_table_for_each_kind():
    steps = {"1_a": make_measured([0.2, 0.3, 0.4], "1_a"), "2_b": make_measured([0.3, 0.4, 0.5], "1_a")}
    page = ablation_page(
        ablation({FOLDS: steps, MODALITIES: steps}), ["p", "s"], "make ablation STEPS=7", str.upper
    )
    assert "`make ablation STEPS=7`: 2 trainings, 7 steps of 8 crops of 192 pixels, seed 0" in page
    assert "Machine: 1 cpu threads. Commit: 12345678." in page
    assert page.count("| step | what it adds | score (95%) | adds (95%) | AP 0.50 | AP 0.75 | AP 0.90 |") == 2
    assert page.count("| `1_a` | 1_A | **0.300** (0.200 to 0.400) |  | 0.300 | 0.300 | 0.300 | 0.325 |") == 2
    # the second step predicts with the weights of the first: no minutes of its own
    last = "| `2_b` | 2_B | **0.400** (0.300 to 0.500) | +0.100 (+0.100 to +0.100) | 0.400 | 0.400 | 0.400 |"
    assert f"{last} 0.425 | 0.500 | 0.350 |  |" in page


def scripts_run(answer):
    return dict(Counter(re.findall(r"scripts/(\w+)\.py", answer.stdout)))


def test_make_trains_what_a_step_changes_and_no_more_and_then_has_nothing_to_do(tmp_path, warm_python):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    assert run_script("generate.py", "--out", tmp_path / "archive", "--train", 12, "--test", 1).returncode == 0
    settings = [f"{name.upper()}={tmp_path / name}" for name in ("data", "runs", "ablation")]
    settings += [f"SOURCE={tmp_path / 'archive'}", "FOLDS=0", "MODALITIES=1", "STEPS=1"]
    settings += [f"PYTHON={warm_python}", "DEVICE=cpu", "WORKERS=0", "V=1"]

    def make(*arguments):
        command = ["make", "--no-print-directory", "-C", str(ROOT), *settings, *arguments, "ablation"]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    steps = ("ABLATION_STEPS=5_learning_rate 6_tta 8_tuned", "UNSEEN_STEPS=5_learning_rate")
    planned = make("--dry-run", *steps, "FOLDS=0 1 2 3 4", "COMPLETE=folds")
    # one network on five folds and on one unseen modality, for four steps; 8_tuned has the maps of
    # 7_multi_scale
    expected = {"train": 6, "predict": 16, "score_fold": 11, "ensemble": 1, "tune": 1, "ablate": 1}
    assert {name: scripts_run(planned)[name] for name in expected} == expected

    answer = make("ABLATION_STEPS=6_tta")
    assert answer.returncode == 0, answer.stderr[-3000:]
    ran = scripts_run(answer)
    assert (ran["train"], ran["predict"], ran["score_fold"], ran["ablate"]) == (
        2,
        2,
        2,
        1,
    )  # 5_learning_rate has the weights
    table = pd.read_csv(tmp_path / "ablation/ablation.csv").set_index(["held_out", "ablation_step"])
    assert list(table.index) == [(FOLDS, "6_tta"), (MODALITIES, "6_tta")]
    splits, by_modality = (
        read_splits(tmp_path / "data" / name) for name in ("splits.csv", "splits_modality.csv")
    )
    assert splits.fold.nunique() == 5  # though one alone is asked for
    assert table.images.tolist() == [(splits.fold == 0).sum(), (by_modality.fold == 1).sum()]
    assert "`make ablation STEPS='1' ABLATION_STEPS='6_tta'" in (tmp_path / "ablation/README.md").read_text()
    assert make("--question", "ABLATION_STEPS=6_tta").returncode == 0


def test_any_experiment_can_leave_modalities_out_but_not_in_the_place_of_its_other_runs():
    command = [
        "make",
        "--dry-run",
        "-C",
        str(ROOT),
        f"PYTHON={sys.executable}",
        "SPLITS=data/splits_modality.csv",
    ]
    refused = subprocess.run([*command, "runs/unet_small/cv.json"], capture_output=True, text=True)
    assert refused.returncode != 0
    assert "give RUNS=<folder> as well" in refused.stderr
    planned = subprocess.run(
        [*command, "RUNS=left_out", "left_out/unet_small/cv.json"], capture_output=True, text=True
    )
    assert (
        planned.stdout.count("--splits data/splits_modality.csv") == 11
    )  # five networks, their maps, and the tuning
    assert "--splits data/splits.csv" not in planned.stdout
