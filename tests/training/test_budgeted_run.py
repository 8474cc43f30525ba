"""A rehearsal of `make train-all` on the CPU: all its commands in order, in this process."""

import json
import runpy
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_config import TINY_CONFIG

from nuclei.config_files import read_config
from nuclei.errors import UserError
from nuclei.io.files import write_csv
from nuclei.models.checkpoint_file import load_checkpoint
from nuclei.training.budgeted_run import Places, Request, find_needs, train_all

ROOT = Path(__file__).parents[2]


class Ended:
    """A command that has ended."""

    def __init__(self, code):
        self.code = code

    def poll(self):
        return self.code

    def terminate(self):
        pass

    kill = terminate


class Starter:
    """Runs each command at once; those of `failing` are not run and fail."""

    def __init__(self, monkeypatch, failing=()):
        self.monkeypatch, self.failing, self.ran = monkeypatch, failing, []

    def __call__(self, task):
        self.ran.append(task.name)
        if task.name in self.failing:
            return Ended(1)
        self.monkeypatch.setattr(sys, "argv", list(task.command[1:]))
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(task.command[1], run_name="__main__")
        return Ended(ended.value.code)


@pytest.fixture(scope="module")
def places(processed, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("train_all")
    table = images.index[images.index.subset == "train"]
    table = table[["image_id", "group", "modality", "nuclei"]].assign(fold=np.arange(len(table)) // 4)
    write_csv(folder / "splits.csv", table)
    text = TINY_CONFIG.format(model="", scheme="energy", steps=6, flips=1)
    (folder / "configs").mkdir()
    (folder / "configs/small.toml").write_text(text)
    tuned = 'extends = "small.toml"\n[training]\nstart = "small"\nsteps = 4\n'
    (folder / "configs/for_all.toml").write_text(tuned)
    return Places(
        folder / "configs", processed, folder / "splits.csv", None, folder / "runs/2_minutes", ROOT / "scripts"
    )  # fmt: skip


REQUEST = Request(
    minutes=2, members=("small",), on_all_images=("for_all",), folds=("0", "1"), device="cpu", at_once=2
)


@pytest.fixture(scope="module")
def finished(places):
    """The folder after a call in which fold 1 failed, the second call, and what both ran."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        first = Starter(monkeypatch, failing=["train small/fold_1"])
        broken = train_all(REQUEST, places, time.monotonic(), first)
        second = Starter(monkeypatch)
        whole = train_all(REQUEST, places, time.monotonic(), second)
    return first, broken, second, whole


def test_a_rehearsal_trains_predicts_and_scores_all_that_is_asked_for(finished, places):
    _, _, _, whole = finished
    assert whole.unfinished == []
    assert whole.trained == whole.trainings == 3
    paths = ["small/fold_0/model.pt", "small/fold_1/test.npz", "for_all/fold_all/model.pt", "small/cv.json"]
    assert all((places.out / path).is_file() for path in paths)


def test_the_table_says_how_fast_and_how_good_each_experiment_is(finished):
    _, _, _, whole = finished
    rows = whole.table.set_index("experiment")
    assert rows["trained"].to_dict() == {"small": "2/2", "for_all": "1/1"}
    assert 0 <= float(rows["out of fold"]["small"]) <= 1
    assert rows["out of fold"]["for_all"] == ""
    assert "images a second" in whole.text
    assert "of the peak of" in whole.text


def test_what_failed_is_named_and_the_same_call_goes_on_with_it_alone(finished):
    first, broken, second, _ = finished
    assert broken.unfinished == ["train small/fold_1", "predict small/fold_1", "join small", "tune small"]
    assert first.ran[:2] == ["measure small 0", "measure for_all 1"]
    assert second.ran == ["train small/fold_1", "predict small/fold_1", "join small", "tune small"]


def test_the_network_on_all_images_starts_from_the_first_fold_trained_here(finished, places):
    first = finished[0]
    assert first.ran.index("train small/fold_0") < first.ran.index("train for_all/fold_all")
    settings = load_checkpoint(places.out / "for_all/fold_all/model.pt")["settings"]
    assert settings["weights of training.start"]


def test_the_steps_are_in_the_plan_and_in_a_config_that_extends_the_experiments_own(finished, places):
    plan = json.loads((places.out / "plan.json").read_text())
    config = read_config(places.out / "configs/for_all.toml")
    assert plan["plan"]["steps"] == {"small": 6, "for_all": 4}
    assert (config.training.steps, config.training.start, config.model.width) == (4, "small", 4)
    assert load_checkpoint(places.out / "for_all/fold_all/model.pt")["config"]["training"]["steps"] == 4


def test_another_request_does_not_go_on_with_the_plan_of_this_one(finished, places):
    other = REQUEST.model_copy(update={"members": ("small", "for_all")})
    with pytest.raises(UserError, match="members was"):
        train_all(other, places, time.monotonic(), lambda task: Ended(1))


def test_a_start_that_is_neither_planned_nor_shipped_is_refused():
    assert find_needs("long", "small", "1", {"small/fold_1"}) == ("small/fold_1",)
    assert find_needs("for_all", "encoder_resunet", "all", set()) == ()
    with pytest.raises(UserError, match="add it to MEMBERS="):
        find_needs("long", "small", "1", {"small/fold_0"})
