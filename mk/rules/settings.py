"""The settings: defaults of the Makefile, values of the command line, and what follows."""

import csv
import os
import re
import sys
from pathlib import Path

from rules.configs import Experiment, read_experiments
from rules.text import RefusedError, check_folder, check_name, nearest, path_text, variable_text

MAKEFILE = Path("Makefile")
SETTING = re.compile(r"^([A-Z_]+) +=([^#\n]*)", re.MULTILINE)
NO_HOLD_OUT = "all"
"""As a fold: train on all images and hold out none."""
RENAMED = {
    "SHARES": "ENSEMBLE_WEIGHTS",
    "RUNGS": "ABLATION_STEPS",
    "LEFT_OUT_RUNGS": "UNSEEN_STEPS",
}
"""Settings of earlier versions and their names of today."""
STAGES = ("stage1", "stage2")
"""Values of SUBSET: the test images of the first stage, and those of the final set."""
MAKES_OWN = {"MAKE", "SHELL", "MAKEFLAGS", "CURDIR", ".FEATURES"}
"""Variables of make itself, which people may set too."""

FOLDERS = frozenset(
    (
        "DATA",
        "EXTERNAL",
        "SPLITS",
        "RUNS",
        "SUBMISSIONS",
        "PACKED",
        "CONFIGS",
        "EDA",
        "CHECKPOINT",
        "COMPARISONS",
        "ABLATION",
    )
)
"""Paths that become targets of make."""
NUMBERS, NUMBER_LISTS = (
    {"FOLD", "HELD_OUT", "STEPS", "SPLIT_INTO", "AT_ONCE", "KILLS", "CASES"},
    {"FOLDS", "MODALITIES", "SEEDS"},
)
NAMES, NAME_LISTS = (
    {"EXP", "MODEL", "AGAINST", "SUBSET"},
    {
        "MEMBERS",
        "ON_ALL_IMAGES",
        "VARIANTS",
        "ABLATION_STEPS",
        "UNSEEN_STEPS",
        "COUNTS",
        "COMPLETE",
        "ROWS",
    },
)
LISTS = NUMBER_LISTS | NAME_LISTS | {"ENSEMBLE_WEIGHTS", "SETS"}
"""Settings of several words; all others that are no paths and no numbers or names may hold any
text."""


class Settings:
    """All settings by name, as text, and derived values; `given` are the command line's."""

    def __init__(self, given: dict[str, str], goals: list[str]) -> None:
        defaults = read_defaults()
        unknown = [name for name in given if name not in defaults and name not in MAKES_OWN]
        if unknown and unknown[0] in RENAMED:
            raise RefusedError(f"{unknown[0]}= is now called {RENAMED[unknown[0]]}=")
        if unknown:
            known = {name.upper(): name for name in defaults}
            raise RefusedError(f"{unknown[0]}= is no setting{nearest(unknown[0].upper(), known, 0.5)}")
        self.goals, self.given = (
            goals,
            {name: value for name, value in given.items() if name in defaults},
        )
        self.values = defaults | self.given
        for name, value in self.given.items():
            check_value(name, value)
        self._fill_paths()
        self._fill_experiments()
        self._fill_folds()

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def words(self, name: str) -> list[str]:
        return self.values[name].split()

    def is_given(self, name: str) -> bool:
        """Whether the command line gives it a value; `EXP=` alone stands for the default."""
        return bool(self.given.get(name))

    @property
    def is_screening(self) -> bool:
        """Whether `make screen` was asked for, or a part of it."""
        return any(goal == "screen" or f"{self['RUNS']}/screen/" in goal for goal in self.goals)

    @property
    def stage2(self) -> bool:
        """Whether the test images are those of the final set."""
        return self["SUBSET"] == "stage2"

    @property
    def test_maps(self) -> str:
        """The file of the test images' probability maps, in the folder of a run or fold."""
        return "stage2.npz" if self.stage2 else "test.npz"

    @property
    def test_suffix(self) -> str:
        """What the name of a submission ends with."""
        return "_stage2" if self.stage2 else ""

    @property
    def processed(self) -> str:
        """The folder of the prepared test images."""
        return self.path("DATA", *(["stage2"] if self.stage2 else []), "processed")

    def path(self, name: str, *parts: str) -> str:
        """A file below the folder of a setting."""
        return "/".join([self.values[name], *parts])

    def _fill_paths(self) -> None:
        for name in FOLDERS:
            if self.values[name]:
                self.values[name] = check_folder(name, os.path.expanduser(self.values[name]))
        data = self["DATA"]
        self.values["SPLITS"] = self["SPLITS"] or f"{data}/splits.csv"
        self.values["EXTERNAL"] = self["EXTERNAL"] or f"{data}/external"
        if self["SUBSET"] not in STAGES:
            raise RefusedError(
                f"SUBSET={self['SUBSET']}: stage1 or stage2{nearest(self['SUBSET'], STAGES, 0.5)}"
            )
        solution = "stage2/raw/stage2_solution_final.csv" if self.stage2 else "raw/stage1_solution.csv"
        self.values["TRUTH"] = self["TRUTH"] or f"{data}/{solution}"
        self.values["EDA"] = self["EDA"] or ("eda.html" if data == "data" else f"{data}/eda.html")
        self.values["KAGGLE_USER"] = self["KAGGLE_USER"] or os.environ.get("KAGGLE_USERNAME", "")
        if self["SPLITS"] != f"{data}/splits.csv" and self["RUNS"] == "runs":
            raise RefusedError(
                f"SPLITS={self['SPLITS']}: networks of other folds would take the place of those "
                "in runs/; give RUNS=<folder> as well"
            )

    def _fill_experiments(self) -> None:
        self.experiments: dict[str, Experiment] = read_experiments(Path(self["CONFIGS"]))
        self.members = self.words("MEMBERS")
        for name in [*self.members, *self.words("MODEL")]:
            self._check_experiment("MODEL" if name not in self.members else "MEMBERS", name)
        self._fill_on_all_images()
        weights = self["ENSEMBLE_WEIGHTS"]
        if weights and len(weights.split()) != len(self.members):
            raise RefusedError(
                f"ENSEMBLE_WEIGHTS={weights}: give a number for each of {' '.join(self.members)}"
            )
        self.experiment = self["EXP"] or "ensemble"
        made = [Path(self["SUBMISSIONS"]).joinpath(f"{self.experiment}.csv").is_file()]
        elsewhere = self.is_screening and Path("configs/compare", f"{self.experiment}.toml").is_file()
        if self.experiment not in ("ensemble", "otsu") and not any(made) and not elsewhere:
            self._check_experiment("EXP", self.experiment, ("ensemble",))
        self.chosen = self.members if self.experiment in ("ensemble", "otsu") else [self.experiment]

    def _fill_on_all_images(self) -> None:
        """The default is for the ensemble, where CONFIGS has such an experiment."""
        names = self.words("ON_ALL_IMAGES")
        if "ON_ALL_IMAGES" in self.given:
            for name in names:
                self._check_experiment("ON_ALL_IMAGES", name)
        else:
            names = [name for name in names if name in self.experiments and not self.is_given("EXP")]
        self.values["ON_ALL_IMAGES"] = " ".join(names)

    def _check_experiment(self, setting: str, name: str, others: tuple[str, ...] = ()) -> None:
        if name not in self.experiments:
            known = [*self.experiments, *others]
            raise RefusedError(f"{setting}: no experiment {name} in {self['CONFIGS']}/{nearest(name, known)}")
        if self.experiments[name].fault:
            raise RefusedError(self.experiments[name].fault)

    def _fill_folds(self) -> None:
        self.all_folds = read_folds(Path(self["SPLITS"])) or [
            str(fold) for fold in range(int(self["SPLIT_INTO"]))
        ]
        if (
            self.is_given("SPLIT_INTO")
            and not self.is_given("SPLITS")
            and len(self.all_folds) != int(self["SPLIT_INTO"])
        ):
            raise RefusedError(
                f"SPLIT_INTO={self['SPLIT_INTO']}: {self['SPLITS']} has {len(self.all_folds)} "
                "folds already; delete it to split again, or give another DATA="
            )
        if self.is_given("FOLD") and self.is_given("FOLDS"):
            raise RefusedError("give FOLD= or FOLDS=, not both")
        name = "FOLD" if self.is_given("FOLD") else "FOLDS"
        self.folds = self.words(name) or self.all_folds
        for fold in self.folds:
            if fold not in (*self.all_folds, NO_HOLD_OUT):
                raise RefusedError(
                    f"{name}={self[name]}: the folds of {self['SPLITS']} are {' '.join(self.all_folds)}"
                )
        if len(set(self.folds)) < len(self.folds):
            raise RefusedError(f"{name}={self[name]}: a fold stands there twice")
        self.some_folds = set(self.folds) != set(self.all_folds)
        self.label = ""
        if self.some_folds and self.folds != [NO_HOLD_OUT]:
            self.folds.sort(key=int)
            self.label = "_".join(["fold" if len(self.folds) == 1 else "folds", *self.folds])
        if self.words("SPLIT_INTO") and int(self["SPLIT_INTO"]) < 2:
            raise RefusedError(f"SPLIT_INTO={self['SPLIT_INTO']}: two folds at least")

    def lines(self) -> list[str]:
        """Every setting as a variable of lower case, safe in recipes, and paths in rules too."""
        ready = "" if self.is_given("PYTHON") else ".venv/installed.txt"
        lines = [
            "hash := \\#",
            f"base_python := {variable_text(getattr(sys, '_base_executable', sys.executable))}",
        ]
        lines.append(f"ready := {ready}".rstrip())
        lines.append(f"publish := {ready and '.venv/publishing.txt'}".rstrip())
        lines.append(f"develop := {ready and '.venv/development.txt'}".rstrip())
        lines.append(f"supply := {ready and '.venv/supply.txt'}".rstrip())
        for name, value in self.values.items():
            if name in FOLDERS:
                text = path_text(value)
            elif name in LISTS:
                text = " ".join(map(variable_text, value.split()))
            else:
                text = variable_text(value) if value else ""
            lines.append(f"{name.lower()} := {text}".rstrip())
        return lines


def read_defaults() -> dict[str, str]:
    """The settings' names and constant defaults, as they stand in the Makefile."""
    text = MAKEFILE.read_text(encoding="utf-8")
    return {name: value.strip() for name, value in SETTING.findall(text)}


def check_value(name: str, value: str) -> None:
    """Refuses a value of the command line that is of another kind than the setting's."""
    if "\n" in value:
        raise RefusedError(f"{name}: give one line")
    if (
        name in NUMBERS | NUMBER_LISTS
        and (name, value) != ("FOLD", NO_HOLD_OUT)
        and not all(word.isdecimal() and word.isascii() for word in value.split())
    ):
        raise RefusedError(
            f"{name}={value}: {'numbers' if name in LISTS else 'a number'} expected, counted from 0"
        )
    if name in NAMES | NAME_LISTS:
        for word in value.split():
            check_name(name, word)
    if name in NUMBERS | NAMES and len(value.split()) > 1:
        raise RefusedError(f"{name}={value}: one word expected")


def read_folds(path: Path) -> list[str]:
    """The folds of a table of splits; none where it is not there yet or is no such table."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            folds = {row["fold"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error):
        return []
    if not all(fold and re.fullmatch("[0-9]{1,9}", fold) for fold in folds):
        return []
    return sorted(folds, key=int)
