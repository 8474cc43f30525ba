"""The Makefile and its generator: --dry-run, or a Python that only writes the files asked for."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from nuclei.config import WEIGHTLESS
from nuclei.config_files import RENAMED, parse_config, read_config
from nuclei.errors import UserError

ROOT = Path(__file__).parents[1]
MAKEFILES = [ROOT / "Makefile", *sorted((ROOT / "mk").glob("*.mk"))]
HOSTILE = 'it\'s  "a" `touch pwned` $(touch pwned) $(shell touch pwned) ; touch pwned & #b $HOME \\'
SETTINGS = re.findall(r"^([A-Z_]+) +=", (ROOT / "Makefile").read_text(), re.MULTILINE)
PHONY = re.findall(r"^([a-z-]+):.*  ## ", "".join(path.read_text() for path in MAKEFILES), re.MULTILINE)

STUB = """#!/bin/sh
# Stands for Python: writes down how it was called, and the files below its folder that a script would have made.
case "$*" in *mk/write_rules.py*) exec {python} "$@";; esac
printf '%s\\036' "$@" >> {log}; printf '\\035' >> {log}
write() {{ [ -d "${{1%/*}}" ] || mkdir -p "${{1%/*}}"; echo made > "$1.new" && mv "$1.new" "$1"; }}
script=$1
while [ $# -gt 1 ]; do
  case "$1 $2" in
    "--cv "*) [ -e "$2" ] || write "$2";;
    "--out {folder}"*) case $script in
      *train.py) write "$2/model.pt";; *download.py) write "$2/manifest.csv";; *prepare.py) write "$2/index.csv";;
      *) write "$2";; esac;;
    "--oof {folder}"*|"--test {folder}"*) write "$2";;
  esac
  shift
done
case $script in *train.py) [ -z "$STUB_WAITS" ] || sleep 30; exit ${{STUB_EXIT:-0}};; esac
"""


class Make:
    """make in this repository, with data, runs and configs of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.python = folder, folder / "calls", folder / "python"
        self.python.write_text(STUB.format(python=sys.executable, log=self.log, folder=folder))
        self.python.chmod(0o755)
        self.configs = folder / "configs"
        if not self.configs.exists():
            self.configs.mkdir()
            (self.configs / "first.toml").write_text("# a comment\n[training]\nsteps = 5\n")
            (self.configs / "second.toml").write_text('extends = "first.toml"\n[prediction]\nflips = 2\n')
        self.settings = {
            name: str(folder / name.lower()) for name in ("DATA", "RUNS", "SUBMISSIONS", "PACKED", "CONFIGS")
        }
        (folder / "truth.csv").touch()
        self.settings["TRUTH"] = f"{folder}/truth.csv"
        self.settings |= {"MEMBERS": "first second", "SPLIT_INTO": "2", "PYTHON": str(self.python)}

    def command(self, *arguments: str) -> list[str]:
        given = {argument.split("=", 1)[0] for argument in arguments if "=" in argument}
        settings = [f"{name}={value}" for name, value in self.settings.items() if name not in given]
        return ["make", "--no-print-directory", "-C", str(ROOT), *settings, *arguments]

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, env=os.environ | environment
        )

    def run(self, *arguments: str) -> list[str]:
        """The scripts that ran, one after the other."""
        answer = self(*arguments)
        assert answer.returncode == 0, answer.stderr
        return [Path(call[0]).stem for call in self.calls() if call[0].startswith("scripts/")]

    def calls(self) -> list[list[str]]:
        """The arguments of every call of Python, but for those of the generator."""
        return [
            call.split("\036")[:-1] for call in self.log.read_text(errors="surrogateescape").split("\035")[:-1]
        ]

    def planned(self, *arguments: str) -> list[str]:
        answer = self("--dry-run", *arguments)
        assert answer.returncode == 0, answer.stderr
        return re.findall(r"scripts/(\w+)\.py", answer.stdout)


@pytest.fixture
def make(tmp_path) -> Make:
    return Make(tmp_path)


def plain(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """make with the repository's own settings; nothing of it is run."""
    command = [
        "make",
        "-C",
        str(ROOT),
        "--no-print-directory",
        "--dry-run",
        f"PYTHON={sys.executable}",
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def refused(answer: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal."""
    assert answer.returncode == 2
    assert answer.stdout == ""
    (line,) = answer.stderr.strip().splitlines()
    return line


# --- what a reader meets -------------------------------------------------------------------------


def test_the_chapters_are_rules_that_can_be_read():
    for path in MAKEFILES:
        text = path.read_text()
        assert not re.search(r"\bdefine\b|\$\(eval|\bsed\b|^\.DELETE_ON_ERROR", text, re.MULTILINE), path
        assert max(map(len, text.splitlines())) < 140, path


def test_no_recipe_takes_a_setting_that_is_not_quoted():
    for path in MAKEFILES[1:]:
        upper = set(re.findall(r"\$\(([A-Z_]+)\)", path.read_text()))
        assert upper <= {"MAKECMDGOALS", "MAKE", "MAKEFLAGS"}, path


@pytest.mark.parametrize("arguments", [[], ["help"]])
def test_make_lists_every_target_and_setting_within_100_columns_without_python(arguments):
    answer = subprocess.run(
        ["make", "-C", ROOT, "--no-print-directory", *arguments],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert answer.returncode == 0
    assert max(map(len, answer.stdout.splitlines())) <= 100
    for target in PHONY:
        assert re.search(rf"^  {target}  +\S", answer.stdout, re.MULTILINE), target
    assert set(SETTINGS) <= set(answer.stdout.split())
    assert len(PHONY) >= 28


def test_every_target_can_be_planned():
    answer = plain(*PHONY, "SETS=tnbc ../my_set", "IMAGES=a", "OUT=b", "SOURCE=c", "KAGGLE_USER=me")
    assert answer.returncode == 0, answer.stderr
    planned = set(re.findall(r"scripts/(\w+)\.py", answer.stdout))
    assert len(planned) >= 26
    for script, arguments in re.findall(r"scripts/(\w+)\.py (.*)", answer.stdout.replace("\\\n", " ")):
        files = [
            f"scripts/{script}.py",
            *(f"src/nuclei/{each}/options.py" for each in ("segmentation", "training")),
        ]
        known = "".join((ROOT / file).read_text() for file in files)
        for flag in re.findall(r" (--[a-z-]+)", f" {arguments}"):
            assert f'"{flag}"' in known, f"{script}.py {flag}"


def test_a_make_without_grouped_targets_is_refused_before_any_include():
    answer = subprocess.run(["make", "-n", "-C", ROOT, ".FEATURES=", "train"], capture_output=True, text=True)
    assert answer.returncode == 2
    assert "GNU make 4.3 or later is needed" in answer.stderr
    assert "brew install make" in answer.stderr
    text = (ROOT / "Makefile").read_text()
    assert text.index("grouped-target,$(.FEATURES)") < min(
        text.index("&:") if "&:" in text else 9**9, text.index("include ")
    )


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "MEMEBRS=first"], "MEMEBRS= is no setting; did you mean MEMBERS?"),
        (
            ["segment", "IMAGES=a", "OUT=b", "CHANEL=2"],
            "CHANEL= is no setting; did you mean CHANNEL?",
        ),
        (["train", "data=elsewhere"], "data= is no setting; did you mean DATA?"),
        (["train", "EXP=frist"], "EXP: no experiment frist in {configs}/; did you mean first?"),
        (
            ["train", "MEMBERS=first secnd"],
            "MEMBERS: no experiment secnd in {configs}/; did you mean second?",
        ),
        (
            ["train", "MODEL=secnd"],
            "MODEL: no experiment secnd in {configs}/; did you mean second?",
        ),
        (["train", "FOLD=9"], "FOLD=9: the folds of {folder}/data/splits.csv are 0 1"),
        (["train", "FOLD=one"], "FOLD=one: a number expected"),
        (["train", "FOLD=0", "FOLDS=1"], "give FOLD= or FOLDS=, not both"),
        (["leaderboard", "FOLD=0"], "leaderboard is of all folds"),
        (["unseen", "FOLD=0"], "unseen is of all folds"),
        (["external"], "external: give SETS='bbbc039 tnbc nuinsseg'"),
        (["{folder}/submissions/first.csv", "FOLD=0"], "first.csv is of all folds"),
        (["train", "FOLDS=0 0"], "a fold stands there twice"),
        (["train", "SHARES=1"], "SHARES= is now called ENSEMBLE_WEIGHTS="),
        (["ablation", "RUNGS=6_tta"], "RUNGS= is now called ABLATION_STEPS="),
        (["ablation", "LEFT_OUT_RUNGS=6_tta"], "LEFT_OUT_RUNGS= is now called UNSEEN_STEPS="),
        (
            ["train", "ENSEMBLE_WEIGHTS=1"],
            "ENSEMBLE_WEIGHTS=1: give a number for each of first second",
        ),
        (["train", "MEMBERS=`x`"], "'`x`' is no name"),
        (
            ["{folder}/submissions/frist.csv"],
            "{folder}/submissions/frist.csv: nothing makes it; did you mean",
        ),
        (["{folder}/runs/first/fold_7/model.pt"], "did you mean {folder}/runs/first/fold_"),
        (["trian"], "trian: nothing makes it; did you mean train?"),
        (["segment"], "segment: give IMAGES=<folder of images> OUT=<folder for results>"),
        (["finetune", "START=generalist"], "finetune: give SOURCE=<folder with images/ and labels/"),
        (["summary", "EXP=ensemble"], "EXP=ensemble is no single network; there are: first second"),
        (
            ["submit", "EXP=first", "WEIGHTS={root}/weights/ensemble.json"],
            "give EXP= or WEIGHTS=, not both",
        ),
        (["compare", "VARIANTS=unet_ad"], "VARIANTS: no config unet_ad; did you mean unet_add?"),
        (
            ["ablation", "ABLATION_STEPS=6_tt"],
            "ABLATION_STEPS: no config 6_tt; did you mean 6_tta?",
        ),
        (
            ["submission", "WEIGHTS={root}/weights/ensembl.json"],
            "did you mean {root}/weights/ensemble.json?",
        ),
        (["data", "DATA=it's"], "DATA=it's: make keeps files here"),
        (["data", "SPLITS=other.csv", "RUNS=runs"], "give RUNS=<folder> as well"),
        (["submit", "MESSAGE=two\nlines"], "MESSAGE: give one line"),
        (["score", "SUBSET=stge2"], "SUBSET=stge2: stage1 or stage2; did you mean stage2?"),
        (["train", "SUBSET=stage2"], "score, submission, submit; not for train"),
        (["submission", "SUBSET=stage2", "FOLD=0"], "leave FOLD= and FOLDS= out"),
        (["kaggle-notebook", "SUBSET=stage2"], "the notebook that trains submits stage 1; give WEIGHTS="),
    ],
)
def test_what_is_unknown_or_at_odds_is_refused_with_the_nearest_in_one_line(make, arguments, said):
    places = {"folder": make.folder, "configs": make.configs, "root": ROOT}
    answer = make(*(argument.format(**places) for argument in arguments))
    assert said.format(**places) in refused(answer)
    assert not [call for call in make.calls() if call[0].startswith("scripts/")]


def test_the_environment_redirects_nothing():
    quiet = plain("train", "score", "summary", "eda", "submission")
    assert quiet.returncode == 0
    junk = {name: "junk" for name in [*SETTINGS, "python", "data", "runs", "ready", "GIVEN", "record"]}
    assert plain("train", "score", "summary", "eda", "submission", **junk).stdout == quiet.stdout


def test_the_name_on_kaggle_is_the_one_exception_to_the_environment():
    assert "--user somebody" in plain("kaggle-notebook", KAGGLE_USERNAME="somebody").stdout
    assert "--user me" in plain("kaggle-notebook", "KAGGLE_USER=me", KAGGLE_USERNAME="somebody").stdout


@pytest.mark.parametrize(
    ("target", "setting", "flag"),
    [
        ("segment", "IMAGES", "--images"),
        ("segment", "OUT", "--out"),
        ("segment", "WEIGHTS", "--weights"),
        ("segment", "CHANNEL", "--channel"),
        ("segment", "DEVICE", "--device"),
        ("segment", "MIN_AREA", "--min-area"),
        ("segment", "MAX_AREA", "--max-area"),
        ("data", "SOURCE", "--source"),
        ("finetune", "SOURCE", "--folder"),
        ("finetune", "START", "--start"),
        ("finetune", "MINUTES", "--minutes"),
        ("score", "TRUTH", "--truth"),
        ("submit", "MESSAGE", "--message"),
        ("kaggle-notebook", "KAGGLE_USER", "--user"),
        ("kaggle-notebook", "KAGGLE", "--out"),
        ("report", "REPORT", "--out"),
        ("summary", "SIZE", "--size"),
        ("submission", "WEIGHTS", "--weights"),
    ],
)
def test_any_text_reaches_a_script_as_it_was_typed(make, target, setting, flag):
    value = HOSTILE
    if setting == "WEIGHTS":
        value = str(make.folder / HOSTILE.replace("/", ""))
        Path(value).mkdir()
        (Path(value) / "fold_0.safetensors").touch()
    if setting == "TRUTH":
        value = str(make.folder / HOSTILE.replace("/", ""))
        Path(value).touch()
    (make.folder / "submissions").mkdir()
    (make.folder / "submissions/ensemble.csv").touch()
    needed = {"segment": ("IMAGES=a", "OUT=b"), "finetune": ("SOURCE=c",)}.get(target, ())
    others = [other for other in needed if not other.startswith(setting)]
    answer = make(target, f"{setting}={value}", *others)
    assert answer.returncode == 0, answer.stderr
    passed = [call[call.index(flag) + 1] for call in make.calls() if flag in call]
    expected = f"{value}/fold_0.safetensors" if target == "submission" else value
    assert expected in passed
    for place in (ROOT, make.folder):
        assert not [path for path in place.iterdir() if path.name == "pwned"]


def test_folders_may_have_spaces(make):
    settings = [f"{name}={make.folder}/my {name.lower()}" for name in ("DATA", "RUNS", "SUBMISSIONS", "PACKED")]
    assert make.run("submission", "EXP=first", "MEMBERS=first", *settings).count("train") == 2
    assert (make.folder / "my submissions/first.csv").is_file()
    assert (make.folder / "my runs/first/fold_1/model.pt").is_file()
    assert make.run("submission", "EXP=first", "MEMBERS=first", *settings) == []


# --- names from files ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "`touch pwned`",
        "$(shell touch pwned)",
        "$(touch pwned)",
        "../weights",
        "a b",
        "a;b",
        "-x",
        "",
    ],
)
def test_a_member_with_a_hostile_name_in_a_card_is_refused_before_anything_runs(make, name):
    card = make.folder / "evil.json"
    card.write_text(json.dumps({"members": {name: 0.5}}))
    for target in ("submission", "segment"):
        assert "is no name" in refused(make(target, f"WEIGHTS={card}", "IMAGES=a", "OUT=b"))
    assert not [call for call in make.calls() if call[0].startswith("scripts/")]
    assert not (ROOT / "pwned").exists()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"members": 3}', "{}", "not JSON", '{"members": {}}'])
def test_a_card_that_is_none_is_refused_in_one_line(make, text):
    card = make.folder / "card.json"
    card.write_text(text)
    assert "no card of an ensemble" in refused(make("submission", f"WEIGHTS={card}"))


def test_files_of_weights_and_configs_with_hostile_names_are_refused(make):
    folder = make.folder / "weights"
    folder.mkdir()
    (folder / "$(touch pwned).safetensors").touch()
    assert "is no name" in refused(make("submission", f"WEIGHTS={folder}"))
    (make.configs / "`touch pwned`.toml").touch()
    assert "is no name" in refused(make("train"))
    assert not (ROOT / "pwned").exists()


# --- experiments and folds -----------------------------------------------------------------------


def test_exp_and_fold_say_what_is_trained_predicted_and_submitted(make):
    assert make.run("train", "EXP=second", "FOLD=1")[-1:] == ["train"]
    assert [path.parent.name for path in make.folder.glob("runs/*/fold_*/model.pt")] == ["fold_1"]
    assert (make.folder / "runs/second/fold_1/model.pt").is_file()
    assert make.run("predict", "EXP=second", "FOLD=1") == ["predict"]
    assert make.run("submission", "EXP=second", "FOLD=1")[:1] == ["select_folds"]
    assert (make.folder / "submissions/second_fold_1.csv").is_file()
    assert "submissions/second_fold_1.csv" in make("--dry-run", "submit", "EXP=second", "FOLD=1").stdout
    assert make.run("submission", "EXP=second").count("train") == 1
    assert (make.folder / "submissions/second.csv").is_file()
    assert not (make.folder / "runs/first").exists()


def test_networks_of_an_earlier_version_named_best_pt_are_not_trained_again(make):
    make.run("train", "EXP=first")
    for fold in (0, 1):
        path = make.folder / f"runs/first/fold_{fold}/model.pt"
        path.rename(path.with_name("best.pt"))
    assert make.run("predict", "EXP=first") == ["predict", "predict", "ensemble", "ensemble"]


def test_all_images_can_be_trained_on(make):
    assert make.run("train", "EXP=first", "FOLD=all")[-1] == "train"
    assert (make.folder / "runs/first/fold_all/model.pt").is_file()
    assert "holds out no image" in refused(make("predict", "EXP=first", "FOLD=all"))


def test_unseen_trains_with_whole_sources_held_out_beside_the_runs_of_the_folds(make):
    ran = make.run("unseen", "EXP=second")
    assert [ran.count(script) for script in ("train", "predict", "tune", "score_unseen")] == [2, 2, 1, 1]
    assert ran[-1] == "leaderboard"
    runs = make.folder / "runs"
    assert (runs / "by_source/second/unseen.json").is_file()
    assert not (runs / "second").exists()
    call = next(call for call in make.calls() if call[0].endswith("train.py"))
    assert call[call.index("--splits") + 1] == f"{make.folder}/data/splits_source.csv"
    assert call[call.index("--runs") + 1] == f"{runs}/by_source"
    assert not (make.folder / "submissions").exists()
    assert make.run("unseen", "EXP=second") == ["leaderboard"]
    make.run("weights", "EXP=second")
    call = next(call for call in make.calls() if call[0].endswith("make_weights.py"))
    assert call[call.index("--unseen") + 1] == f"{runs}/by_source/second/unseen.json"
    assert "--unseen" not in make("--dry-run", "weights", "EXP=first").stdout


def test_unseen_scores_an_ensemble_beside_its_members(make):
    assert make.planned("unseen").count("score_unseen") == 3


def test_folds_select_and_never_change_how_many_there_are(make):
    make.settings["SPLIT_INTO"] = "5"
    answer = make("--dry-run", "train", "FOLDS=0 1", "EXP=first")
    assert "--folds 5" in answer.stdout
    assert re.findall(r"--fold (\d)", answer.stdout) == ["0", "1"]
    answer = make("--dry-run", "train", "SPLIT_INTO=3", "EXP=first")
    assert "--folds 3" in answer.stdout
    assert re.findall(r"--fold (\d)", answer.stdout) == ["0", "1", "2"]


def test_folds_are_those_of_the_table_that_is_there(make):
    (make.folder / "data").mkdir()
    (make.folder / "data/splits.csv").write_text("image_id,fold\na,0\nb,1\nc,2\n")
    del make.settings["SPLIT_INTO"]
    assert make.planned("train", "EXP=first").count("train") == 3
    assert "has 3 folds already" in refused(make("train", "SPLIT_INTO=5"))


def test_the_demo_has_a_number_of_folds_of_its_own():
    assert "SPLIT_INTO=2" in plain("demo").stdout
    assert "FOLDS" not in (ROOT / "mk/8_demo.mk").read_text()


def test_make_says_how_many_trainings_are_to_come(make):
    assert (
        "4 trainings to come: first 0 1, second 0 1; the images first" in make("--dry-run", "submission").stderr
    )
    assert "1 training to come: second 1" in make("--dry-run", "train", "EXP=second", "FOLD=1").stderr
    make.run("train", "EXP=first")
    assert "2 trainings to come: second 0 1\n" in make("--dry-run", "leaderboard").stderr
    make.run("train")
    assert "to come" not in make("--dry-run", "leaderboard").stderr


def test_make_says_how_long_a_training_took_before(make):
    place = make.folder / "runs/first/fold_0"
    place.mkdir(parents=True)
    (place / "log.csv").write_text("epoch,minutes\n1,3\n2,7.2\n")
    assert "took before: first 7 min a fold (here)\n" in make("--dry-run", "train").stderr
    scores = make.folder / "submissions/scores"
    scores.mkdir(parents=True)
    record = {"effort": {"minutes": 250, "hardware": "a GPU"}, "fold": {"0": {}, "1": {}}}
    (scores / "second.json").write_text(json.dumps(record))
    said = make("--dry-run", "train").stderr
    assert "first 7 min a fold (here), second 2.1 h a fold (a GPU)\n" in said


def test_a_stage_is_one_line_and_its_command_with_v(make):
    assert make("train", "EXP=first", "FOLD=1").stdout.splitlines() == [
        "download bbbc",
        f"prepare  {make.folder}/data/processed",
        f"splits   {make.folder}/data/splits.csv",
        "train    first fold 1",
    ]
    shown = make("train", "EXP=first", "FOLD=0", "V=1").stdout
    assert "scripts/train.py" in shown
    assert "train    first" not in shown


def test_screen_trains_an_idea_and_its_reference_under_one_budget_and_keeps_the_reference(make):
    assert make.run("screen", "EXP=first").count("train") == 2
    folder = make.folder / "runs/screen/250_steps_fold_0"
    assert "steps = 250" in (folder / "configs/first.toml").read_text()
    assert "flips = 1" in (folder / "configs/first.toml").read_text()
    assert make.run("screen", "EXP=first") == ["screen"]
    assert make.run("screen", "EXP=second") == ["train", "measure", "screen"]
    assert make.run("screen", "EXP=second", "AGAINST=first") == ["screen"]
    (make.configs / "first.toml").write_text("[training]\nsteps = 5\nlearning_rate = 0.5\n")
    make.run("screen", "EXP=first")
    written = (folder / "configs/first.toml").read_text()
    assert "learning_rate" not in written
    assert "steps = 250" in written


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["EXP=frist"], "EXP: no experiment frist in {configs}/; did you mean first?"),
        (["EXP=first", "AGAINST=first"], "screen: first against itself; give AGAINST=<another config>"),
        (["EXP=first", "AGAINST=unet_plian"], "AGAINST: no config unet_plian; did you mean unet_plain?"),
    ],
)
def test_screen_refuses_what_it_cannot_compare(make, settings, said):
    assert said.format(configs=make.configs) in refused(make("screen", *settings))


def test_the_page_of_the_data_lies_beside_its_data(make):
    assert f"--page {make.folder}/data/eda.html" in make("--dry-run", "eda").stdout
    assert "--page eda.html" in plain("eda", "DATA=data").stdout
    assert "--page elsewhere/eda.html" in plain("eda", "DATA=elsewhere").stdout


def test_summary_has_a_network_to_show(make):
    assert f"--config {make.configs}/first.toml" in make("--dry-run", "summary").stdout
    assert f"--config {make.configs}/second.toml" in make("--dry-run", "summary", "EXP=second").stdout


@pytest.mark.parametrize("target", ["submit", "score"])
def test_a_csv_that_is_there_is_sent_or_scored_and_nothing_is_planned_for_it(make, target):
    answer = make(target, "EXP=first")
    assert answer.returncode == 2
    assert "first.csv is missing; make it first: make submission EXP=first" in answer.stderr
    (make.folder / "submissions").mkdir()
    for name in ("first", "ensemble", "bought"):
        (make.folder / f"submissions/{name}.csv").touch()
        assert make.run(target, *([] if name == "ensemble" else [f"EXP={name}"])) == [target]
        (call,) = (call for call in make.calls() if call[0].endswith(f"{target}.py"))
        assert call[call.index("--submission") + 1] == f"{make.folder}/submissions/{name}.csv"


def test_score_without_a_solution_says_how_to_get_one(make):
    (make.folder / "submissions").mkdir()
    (make.folder / "submissions/ensemble.csv").touch()
    answer = make("score", f"TRUTH={HOSTILE}")
    assert answer.returncode == 2
    assert f"error: {HOSTILE} is missing; make data brings that of stage 1" in answer.stderr


def test_submit_with_weights_sends_what_submission_with_weights_wrote(make):
    weights = f"WEIGHTS={ROOT}/weights/ensemble.json"
    make.run("submission", weights)
    predicted = [call for call in make.calls() if call[0].endswith("predict.py")]
    cards = {call[call.index("--config") + 1] for call in predicted}
    assert cards == {f"{ROOT}/weights/ensemble.json"}  # whose prediction replaces that of its networks
    (written,) = (make.folder / "submissions").glob("*.csv")
    assert make.run("submit", weights) == ["submit"]
    (call,) = (call for call in make.calls() if call[0].endswith("submit.py"))
    assert call[call.index("--submission") + 1] == str(written)


def test_beside_a_goal_that_makes_it_the_csv_is_waited_for(make):
    assert make.run("-j2", "submission", "score")[-1] == "score"


def test_the_final_set_is_predicted_by_networks_that_are_there_without_training_again(done):
    scripts = done.run("submission", "SUBSET=stage2", "EXP=first")
    assert scripts.count("predict") == 2
    assert set(scripts) == {"download", "prepare", "predict", "ensemble", "tune", "make_submission"}
    (first, *_) = (call for call in done.calls() if call[0].endswith("predict.py"))
    assert f"{done.folder}/data/stage2/processed" in first
    assert "--oof" not in first
    assert (done.folder / "submissions/first_stage2.csv").exists()


def test_the_final_set_by_the_ensemble_takes_the_weights_tuned_out_of_fold(done):
    assert "train" not in done.run("submission", "SUBSET=stage2")
    calls = [call for call in done.calls() if call[0] == "scripts/ensemble.py"]
    (call,) = (call for call in calls if f"{done.folder}/runs/ensemble/stage2.npz" in call)
    assert call[call.index("--ensemble-weights") + 1] == f"{done.folder}/runs/ensemble/ensemble_weights.json"


# --- what goes stale -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def submitted(tmp_path_factory) -> Make:
    make = Make(tmp_path_factory.mktemp("submitted"))
    assert make.run("submission").count("train") == 4
    return make


@pytest.fixture
def done(submitted, tmp_path) -> Make:
    """A folder in which all is made, and nothing to do."""
    shutil.copytree(submitted.folder, tmp_path, dirs_exist_ok=True)
    return Make(tmp_path)


def test_a_second_run_does_nothing(done):
    assert done.run("submission") == []
    assert done("--question", "submission").returncode == 0


def test_comments_times_and_order_cost_no_training(done):
    text = "[prediction]\n# another comment\n[training]\nvalidate_every = 3\nsteps = 5.0 # as before\n"
    (done.configs / "first.toml").write_text(text)
    os.utime(done.configs / "second.toml")
    assert done.run("submission") == []


def test_a_key_under_its_old_name_makes_nothing_stale(done):
    (done.configs / "first.toml").write_text(
        '[training]\nsteps = 5\npseudo = ""\n[prediction]\nhalve_from = 9\n'
    )
    done.run("submission")
    (done.configs / "first.toml").write_text(
        '[training]\nsteps = 5\npseudo_labels = ""\n[prediction]\nhalve_scales_from = 9.0\n'
    )
    assert done.run("submission") == []


def test_a_changed_prediction_predicts_again_and_trains_nothing(done):
    (done.configs / "first.toml").write_text("[training]\nsteps = 5\n[prediction]\nscales = [1.0, 2.0]\n")
    ran = done.run("train", "submission")
    assert ran.count("train") == 0
    assert ran.count("predict") == 4  # second.toml extends the first
    assert {call[call.index("--config") + 1] for call in done.calls() if "--oof" in call} == {
        f"{done.configs}/first.toml",
        f"{done.configs}/second.toml",
    }
    assert done.run("train", "submission") == []


def test_a_changed_training_trains_again_what_extends_it_too(done):
    (done.configs / "second.toml").write_text(
        'extends = "first.toml"\n[model]\nwidth = 4\n[prediction]\nflips = 2\n'
    )
    assert done.run("train") == ["train", "train"]
    (done.configs / "first.toml").write_text("[training]\nsteps = 6\n")
    assert done("--question", "train").returncode == 1
    assert done.run("train") == ["train"] * 4
    assert done.run("train") == []


def test_a_killed_training_is_still_to_be_made(done):
    (done.configs / "first.toml").write_text("[training]\nsteps = 7\n")
    make_record = f"{done.folder}/runs/first/training.json"
    assert done.run(make_record) == []  # killed here: the record is new, the weights are not
    assert done.run("train", "EXP=first") == ["train", "train"]


def test_networks_from_before_there_were_records_are_kept(done):
    for record in done.folder.glob("runs/**/*.json"):
        if record.name in ("training.json", "prediction.json", "made_from.json"):
            record.unlink()
    assert done.planned("submission") == []
    assert done.run("submission") == []
    assert done.planned("submission") == []
    assert (done.folder / "runs/first/training.json").is_file()


def test_another_set_of_members_is_averaged_anew(done):
    ran = done.run("submission", "ENSEMBLE_WEIGHTS=0.5 0.5")
    assert "tune_ensemble_weights" not in ran
    assert ran.count("ensemble") == 2
    assert "train" not in ran


def test_a_config_with_a_mistake_hinders_its_own_experiment_alone(make):
    (make.configs / "first.toml").write_text("[training\n")
    (make.configs / "third.toml").write_text("[training]\nsteps = 3\n")
    (make.configs / "fourth.toml").write_text('[training]\nstart = "thrid"\n')
    assert make.planned("train", "MEMBERS=third").count("train") == 2
    assert "first.toml: not valid TOML" in refused(make("train", "EXP=second", "MEMBERS=third"))
    assert "'thrid': no such experiment; did you mean third?" in refused(make("train", "MEMBERS=fourth"))
    (make.configs / "fifth.toml").write_text('extends = "thrid.toml"\n')
    said = refused(make(f"{make.folder}/submissions/fifth.csv", "MEMBERS=third"))
    assert "thrid.toml: no such config; did you mean third.toml?" in said


@pytest.mark.parametrize("key", ["start", "pseudo_labels"])
def test_what_a_training_builds_upon_is_made_first(make, key):
    (make.configs / "student.toml").write_text(f'[training]\n{key} = "first"\n')
    (make.configs / "heir.toml").write_text('extends = "student.toml"\n')
    planned = make.planned("train", "EXP=heir", "FOLD=1")
    assert planned.count("train") == (2 if key == "start" else 3)
    assert f"--runs {make.folder}/runs" in make("--dry-run", "train", "EXP=heir").stdout
    assert planned.count("tune") == (0 if key == "start" else 1)


def test_experiments_whose_names_differ_in_case_alone_are_refused(make):
    (make.configs / "First.toml").write_text('extends = "second.toml"\n')
    assert "First and first would have one folder on some systems" in refused(make("train"))


def test_a_checkout_that_may_not_be_written_is_one_line(clone):
    (clone / "clone/.rules").write_text("")  # root may write everywhere, but not below a file
    answer = in_clone(clone, f'exec {sys.executable} "$@"', "data")
    assert "File exists: '.rules'" in refused(answer)


def test_rules_that_do_not_fit_on_the_disk_are_named_and_leave_nothing(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "mk"))
    from rules import book

    def refuse(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match=r"No space left on device: '.*/rules\.mk'"):
        book._replace(tmp_path / "rules.mk", "text")
    assert list(tmp_path.iterdir()) == []


# --- interrupted, and at once --------------------------------------------------------------------


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_finished_network_stays_where_make_is_stopped(make, kind):
    best = make.folder / "runs/first/fold_0/model.pt"
    process = subprocess.Popen(
        make.command("train", "EXP=first", "FOLD=0"),
        env=os.environ | {"STUB_WAITS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not best.exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.1)
    assert process.poll() is None
    os.killpg(process.pid, kind)
    process.wait()
    assert best.exists()
    assert make.run("train", "EXP=first", "FOLD=0") == []


def test_a_finished_network_stays_where_its_process_fails_on_the_way_out(make):
    assert make("train", "EXP=first", "FOLD=0", STUB_EXIT="1").returncode == 2
    assert make.run("train", "EXP=first", "FOLD=0") == []


def test_every_file_that_make_makes_is_precious(make):
    answer = make("--dry-run", "--print-data-base", "train", f"WEIGHTS={ROOT}/weights/ensemble.json")
    blocks = re.findall(r"^((?!#|\.)\S+?)&?:.*\n((?:#.*\n|.*\\\n)*)", answer.stdout, re.MULTILINE)
    made = {
        name: notes
        for name, notes in blocks
        if "/" in name and "Precious" not in notes and "Phony" not in notes
    }
    with_recipe = re.findall(r"^(\S+?):[^\n]*\n(?:#[^\n]*\n)*#  recipe to execute", answer.stdout, re.MULTILINE)
    assert len(with_recipe) > 500
    assert not set(made) & set(with_recipe)


def test_makes_with_different_settings_do_not_meet(make):
    commands = [
        make.command("--dry-run", "train", "EXP=first", f"FOLD={fold % 2}", f"SIZE={fold}") for fold in range(6)
    ]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    for fold, process in enumerate(processes):
        out = process.communicate()[0]
        assert re.findall(r"--fold (\d)", out) == [str(fold % 2)]


# --- set-up --------------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path) -> Path:
    """A copy of what make reads, and a folder `bin` whose python3 is a script."""
    for name in (
        "Makefile",
        "mk",
        "configs",
        "locks",
        "requirements.txt",
        "constraints.txt",
        "pyproject.toml",
    ):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / "clone" / name) if (tmp_path / "clone").mkdir(
            exist_ok=True
        ) is None else None
    (tmp_path / "bin").mkdir()
    return tmp_path


def in_clone(clone: Path, python3: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = clone / "bin/python3"
    script.write_text(f"#!/bin/sh\n{python3}\n")
    script.chmod(0o755)
    path = f"{clone / 'bin'}:/usr/bin:/bin"
    command = ["make", "--no-print-directory", "-C", str(clone / "clone"), *arguments]
    # settings of a make that runs the tests are not for this one
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKEOVERRIDES")
    }
    return subprocess.run(command, capture_output=True, text=True, env=environment | {"PATH": path})


def test_an_old_python3_is_refused_before_a_venv_is_left_behind(clone):
    code = "import sys; sys.version_info = (3, 9, 1); exec(open('mk/write_rules.py').read())"
    old = f'exec {sys.executable} -c "{code}"'
    answer = in_clone(clone, old, "setup")
    assert "Python 3.11 or later is needed" in refused(answer)
    assert "3.9.1" in answer.stderr
    assert not (clone / "clone/.venv").exists()


def test_without_python3_make_says_what_is_needed(clone):
    answer = in_clone(clone, "exit 127", "setup")
    assert answer.returncode == 2
    assert "Python 3.11 or later is needed, as python3 or by PYTHON=<path>" in answer.stderr


def test_a_set_up_that_failed_does_not_block_the_next_try(clone):
    venv = clone / "clone/.venv"
    (venv / "bin").mkdir(parents=True)
    half = venv / "bin/python"
    half.write_text(
        f'#!/bin/sh\ncase "$*" in *write_rules*) exec {sys.executable} "$@";; esac\nexit 1\n'
    )  # no pip
    half.chmod(0o755)
    base = clone / "base"
    base.write_text(
        f"#!/bin/sh\nrm -rf .venv; mkdir -p .venv/bin\ncat > .venv/bin/python <<'END'\n#!/bin/sh\n"
        f'case "$*" in *write_rules*) exec {sys.executable} "$@";; *install*) test -e ok;; esac\nEND\n'
        f"chmod +x .venv/bin/python\n"
    )
    base.chmod(0o755)
    text = (clone / "clone/mk/1_setup.mk").read_text().replace("$(base_python)", str(base))
    (clone / "clone/mk/1_setup.mk").write_text(text)
    assert in_clone(clone, "exit 1", "setup").returncode == 2  # pip fails
    assert not (venv / "installed.txt").exists()
    (clone / "clone/ok").touch()
    answer = in_clone(clone, "exit 1", "setup")
    assert answer.returncode == 0, answer.stderr
    assert [path.name for path in venv.iterdir() if path.is_file()] == ["installed.txt"]


# --- configs -------------------------------------------------------------------------------------


def test_make_and_the_library_read_every_config_alike(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "mk"))
    from rules.configs import RENAMED as OURS
    from rules.configs import WEIGHTLESS as OF_NO_WEIGHT
    from rules.configs import read_experiment

    assert OURS == RENAMED
    theirs = {name: keys for name, keys in WEIGHTLESS.items() if name != "name"}
    dotted = {(name, key) for name, keys in theirs.items() for key in ([None] if keys is True else keys)}
    assert set(OF_NO_WEIGHT) == dotted
    paths = sorted((ROOT / "configs").rglob("*.toml"))
    assert len(paths) > 50
    for path in paths:
        ours = parse_config({"name": path.stem, **read_experiment(path).values}, str(path))
        assert ours == read_config(path), path


@pytest.mark.parametrize("minutes", ["nan", "1e400", "", "-1", "9" * 5000, "[" * 5000])
def test_damaged_records_of_earlier_trainings_count_as_none(monkeypatch, tmp_path, minutes):
    monkeypatch.syspath_prepend(str(ROOT / "mk"))
    from rules import effort
    from rules.settings import read_folds

    (tmp_path / "log.csv").write_text(f"minutes\n{minutes}\n")
    (tmp_path / "a.json").write_text(f'{{"effort": {{"minutes": {minutes}, "hardware": ""}}, "fold": {{}}}}')
    (tmp_path / "splits.csv").write_text(f"image_id,fold\na,{minutes}\n")
    settings = SimpleNamespace(path=lambda *parts: str(tmp_path / parts[-1]), all_folds=["0", "1"])
    assert effort._read_log(tmp_path / "log.csv") is None
    assert effort._read_record(settings, "a") is None
    assert read_folds(tmp_path / "splits.csv") == []
    (tmp_path / "compare.csv").write_text("experiment,minutes,steps,hardware\na\n")
    assert effort._read_table(settings, "a") is None


def test_make_and_the_library_refuse_the_same_chains(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "mk"))
    from rules.configs import read_experiment
    from rules.text import RefusedError

    (tmp_path / "a.toml").write_text('extends = "b.toml"\n')
    (tmp_path / "b.toml").write_text('extends = "a.toml"\n')
    (tmp_path / "c.toml").write_text("extends = 3\n")
    (tmp_path / "d.toml").write_text('extends = "e.toml"\n')
    (tmp_path / "f.toml").write_text("training = 3\n")
    for name in "abcdf":
        with pytest.raises(RefusedError):
            read_experiment(tmp_path / f"{name}.toml")
        with pytest.raises(UserError, match=r"extend|no such config|training"):
            read_config(tmp_path / f"{name}.toml")
