"""The real Makefile on a small generated archive, from the zips to the leaderboard."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from script_runs import run_script
from tiny_config import TINY_CONFIG

from nuclei.io.files import read_json, sha256
from nuclei.io.tables import read_splits
from nuclei.submission.rle import decode_label_map
from nuclei.submission.submission import read_sizes, read_submission, validate

ROOT = Path(__file__).parents[1]
KILLS = int(os.environ.get("NUCLEI_KILLS", "3"))
"""How often the run is killed; NUCLEI_KILLS=20 for a thorough look."""

FIRST_CALLS = """#!/bin/sh
# The first call of each script is a process of its own, as a user has it; the next ones are forks of one process.
case "$1" in scripts/*.py) mkdir "{called}/${{1##*/}}" 2>/dev/null && exec {python} "$@";; esac
exec {warm} "$@"
"""

RESULTS = ("*/fold_*/model.pt", "*/fold_*/*.npz", "*/*.npz", "*/cv.json")


class Pipeline:
    """A folder with configs and an archive in which make is called."""

    def __init__(self, folder: Path, archive: Path, python: str | Path) -> None:
        self.folder, self.python, configs = folder, python, folder / "configs"
        if not configs.exists():
            write_configs(configs)
        self.settings = [f"SOURCE={archive}", f"DATA={folder / 'data'}", f"RUNS={folder / 'runs'}"]
        self.settings += [f"SUBMISSIONS={folder / 'submissions'}", f"CONFIGS={configs}", "MEMBERS=first second"]
        self.settings += [
            "SPLIT_INTO=2",
            "V=1",
            "DEVICE=cpu",
            f"TRUTH={archive}/stage1_solution.csv",
        ]

    def command(self, *arguments: str) -> list[str]:
        settings = [*self.settings, f"PYTHON={self.python}"]
        return ["make", "--no-print-directory", "-C", str(ROOT), *settings, *arguments]

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, env=environment())

    def digests(self) -> dict[str, str]:
        """sha256 of every result: weights, maps, scores and submissions."""
        paths = [path for pattern in RESULTS for path in (self.folder / "runs").glob(pattern)]
        paths += [*(self.folder / "submissions").glob("*.csv"), self.folder / "data" / "splits.csv"]
        paths = [path for path in paths if path.name != "leaderboard.csv"]  # minutes of training stand in it
        return {str(path.relative_to(self.folder)): sha256(path) for path in sorted(paths)}


def write_configs(folder: Path) -> None:
    transposed = 'upsampling = "transposed"'
    folder.mkdir(parents=True)
    first = TINY_CONFIG.format(model="", scheme="energy", steps=6, flips=2)
    second = TINY_CONFIG.format(model=transposed, scheme="three_class", steps=6, flips=1)
    (folder / "first.toml").write_text(first)
    (folder / "second.toml").write_text(second)


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    assert run_script("generate.py", "--out", folder, "--train", 12, "--test", 3).returncode == 0
    return folder


@pytest.fixture(scope="module")
def finished(archive, tmp_path_factory, warm_python) -> Pipeline:
    """A whole run in which each script is once a process of its own, as a user has it."""
    scratch = tmp_path_factory.mktemp("first_calls")
    python = scratch / "python"
    python.write_text(FIRST_CALLS.format(called=scratch, python=sys.executable, warm=warm_python))
    python.chmod(0o755)
    pipeline = Pipeline(tmp_path_factory.mktemp("finished"), archive, python)
    for arguments in (("submission", "EXP=first"), ("leaderboard", "score")):
        answer = pipeline.make(*arguments)
        assert answer.returncode == 0, answer.stderr[-3000:]
    pipeline.printed = answer.stdout
    pipeline.python = warm_python
    return pipeline


def scripts_run(answer: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """How often make ran each script."""
    return dict(Counter(re.findall(r"scripts/(\w+)\.py", answer.stdout)))


def test_the_ensemble_is_a_submission_that_the_validator_accepts(finished):
    sizes = read_sizes(finished.folder / "data/processed/index.csv")
    assert len(sizes) == 3
    validate(finished.folder / "submissions/ensemble.csv", sizes)


def test_the_leaderboard_lists_members_ensemble_and_floor(finished):
    page = (finished.folder / "submissions/README.md").read_text()
    for name in ("first", "second", "ensemble", "otsu"):
        assert f"[{name}]({name}.csv)" in page
        assert f"{read_json(finished.folder / 'runs' / name / 'cv.json')['score']:.4f}" in page


def test_a_clone_without_the_runs_makes_the_same_leaderboard(finished, tmp_path):
    shutil.copytree(finished.folder / "submissions", tmp_path / "submissions")
    (tmp_path / "submissions/README.md").unlink()
    answer = finished.make("standings", f"RUNS={tmp_path / 'runs'}", f"SUBMISSIONS={tmp_path / 'submissions'}")
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert list(scripts_run(answer)) == ["leaderboard"]
    for name in ("README.md", "leaderboard.csv"):
        assert (tmp_path / "submissions" / name).read_text() == (
            finished.folder / "submissions" / name
        ).read_text()


def test_the_score_on_the_test_images_comes_last(finished):
    mean = float(finished.printed.split()[-1])
    assert 0 <= mean <= 1
    assert (finished.folder / "runs/ensemble/score.csv").is_file()


def test_a_second_run_does_nothing(finished):
    before = finished.digests()
    assert finished.make("--question", "leaderboard").returncode == 0
    assert finished.make("leaderboard").returncode == 0
    assert finished.digests() == before


def test_a_submission_that_came_with_a_clone_does_not_pass_for_one_of_its_own(finished, tmp_path):
    answer = finished.make("--dry-run", "submission", f"RUNS={tmp_path / 'runs'}")
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert scripts_run(answer)["train"] == 4


@pytest.mark.parametrize("name", ["student", "heir"])
def test_make_tunes_the_experiment_that_labels_the_test_images_first(finished, tmp_path, name):
    configs = tmp_path / "configs"
    shutil.copytree(finished.folder / "configs", configs)
    text = (configs / "first.toml").read_text()
    (configs / "student.toml").write_text(text.replace("[training]", '[training]\npseudo_labels = "first"'))
    (configs / "heir.toml").write_text('extends = "student.toml"\n')
    answer = finished.make("--dry-run", str(tmp_path / "runs" / name / "fold_1/model.pt"), f"RUNS={tmp_path / 'runs'}",
                           f"CONFIGS={configs}")  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert scripts_run(answer) == {"train": 3, "predict": 2, "ensemble": 1, "tune": 1}


def test_a_changed_prediction_rebuilds_what_hangs_on_it_without_a_training(
    finished, archive, tmp_path, warm_python
):
    shutil.copytree(finished.folder, tmp_path / "copy")
    copy = Pipeline(tmp_path / "copy", archive, warm_python)
    config = copy.folder / "configs/second.toml"
    config.touch()
    assert scripts_run(copy.make("leaderboard")) == {}
    config.write_text(config.read_text().replace("flips = 1", "flips = 2"))
    answer = copy.make("leaderboard")
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert scripts_run(answer) == {
        "predict": 2,
        "tune_ensemble_weights": 1,
        "ensemble": 4,
        "tune": 2,
        "make_submission": 2,
        "leaderboard": 1,
    }
    before, after = finished.digests(), copy.digests()
    assert {name for name in before if before[name] != after[name]} >= {
        "runs/second/oof.npz",
        "runs/second/test.npz",
    }


def test_some_folds_make_a_valid_submission_of_their_own(finished):
    before = finished.digests()
    answer = finished.make("submission", "EXP=first", "FOLD=1")
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert scripts_run(answer) == {"select_folds": 1, "ensemble": 2, "tune": 1, "make_submission": 1}
    made = finished.folder / "submissions/first_fold_1.csv"
    validate(made, read_sizes(finished.folder / "data/processed/index.csv"))
    held_out = read_splits(finished.folder / "data/splits.csv").query("fold == 1")
    tuned = read_json(finished.folder / "runs/some_folds/fold_1/first/cv.json")
    assert set(tuned["image"]) == set(held_out.image_id)
    made.unlink()
    assert finished.digests() == before


def test_shipped_weights_make_a_valid_submission_without_training(finished):
    packed = finished.folder / "weights"
    answer = finished.make("weights", "EXP=first", f"PACKED={packed}")
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert {path.name for path in packed.glob("first/*.*")} == {
        "fold_0.safetensors",
        "fold_1.safetensors",
        "README.md",
    }
    answer = finished.make("submission", f"WEIGHTS={packed}/first")
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert scripts_run(answer) == {"predict": 2, "ensemble": 1, "make_submission": 1}
    (made,) = (finished.folder / "submissions").glob("*_weights_first.csv")
    validate(made, read_sizes(finished.folder / "data/processed/index.csv"))
    made.unlink()
    shutil.rmtree(finished.folder / "runs" / made.stem)


def test_a_shipped_ensemble_gives_the_submission_of_the_trained_one(finished):
    packed = finished.folder / "packed"
    answer = finished.make("weights", "EXP=ensemble", f"PACKED={packed}")
    assert answer.returncode == 0, answer.stderr[-3000:]
    elsewhere = finished.folder / "elsewhere"  # without the runs, as in a fresh clone
    answer = finished.make(
        "submission", f"WEIGHTS={packed}/ensemble.json", f"PACKED={packed}", f"RUNS={elsewhere}"
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert scripts_run(answer) == {"predict": 4, "ensemble": 3, "make_submission": 1}
    (made,) = (finished.folder / "submissions").glob("*_packed_ensemble.csv")
    sizes = read_sizes(finished.folder / "data/processed/index.csv")
    trained = finished.folder / "submissions/ensemble.csv"
    both = [read_submission(path) for path in (made, trained)]
    for image_id, size in sizes.items():  # half precision moves a pixel now and then
        one, other = (decode_label_map(runs[image_id], *size) > 0 for runs in both)
        assert (one != other).mean() < 0.01
    made.unlink()
    shutil.rmtree(elsewhere)


def test_two_jobs_at_once_that_are_killed_go_on_and_end_in_the_files_of_one(
    finished, archive, tmp_path, warm_python
):
    """kill -9 of make and its children at random moments; the same command with other workers."""
    moments = random.Random(0)
    pipeline = Pipeline(tmp_path, archive, sys.executable)
    for kill in range(KILLS):
        process = subprocess.Popen(
            pipeline.command("-j2", "leaderboard", f"WORKERS={kill % 3}"),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        time.sleep(moments.uniform(1, 8) if pipeline.python == sys.executable else moments.uniform(0.5, 4))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        pipeline.python = warm_python  # from the second kill on, so that more of them fall between starts
    answer = pipeline.make("-j2", "leaderboard")
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert pipeline.digests() == finished.digests()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("config", ["first.toml", "model.widht", "did you mean width?"]),
        ("fold", ["fold 7 is unknown", "[0, 1]"]),
        ("image", ["no readable image", "make data"]),
        ("mask", ["label_map", "make data"]),
        ("checkpoint", ["model.pt", "not a readable checkpoint", "train the fold again"]),
    ],
)
def test_bad_input_is_named_with_a_remedy_and_loses_nothing(finished, tmp_path, warm_python, spoil, said):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(finished.folder / "data", data)
    config = tmp_path / "first.toml"
    text = (finished.folder / "configs/first.toml").read_text()
    config.write_text(text.replace("width", "widht") if spoil == "config" else text)
    if spoil == "image":
        next((data / "processed/images").iterdir()).write_bytes(b"not a PNG")
        for path in (data / "processed/images").iterdir():
            path.write_bytes(b"not a PNG")
    if spoil == "mask":
        for path in (data / "processed/labels").iterdir():
            path.unlink()
    places = ["--processed", data / "processed", "--splits", data / "splits.csv"]
    if spoil == "checkpoint":
        (tmp_path / "model.pt").write_bytes(
            (finished.folder / "runs/first/fold_0/model.pt").read_bytes()[:1000]
        )
        command = ["scripts/predict.py", "--checkpoint", tmp_path / "model.pt", *places]
        command += ["--oof", out / "oof.npz", "--test", out / "test.npz"]
    else:
        command = ["scripts/train.py", "--config", config, *places, "--out", out]
        command += ["--fold", "7" if spoil == "fold" else "0"]
    answer = subprocess.run(
        [warm_python, *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment() | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    for part in said:
        assert part in answer.stderr.replace("label map", "label_map")
    assert not list(out.glob("*.npz")) + list(out.glob("model.pt"))
