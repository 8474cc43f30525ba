"""How long trainings took before: on this machine, else as recorded in the repository."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rules.settings import Settings

NAMED = 4
"""Experiments whose minutes are named one by one; of more only the sum is."""


@dataclass(frozen=True)
class Effort:
    """Minutes that the training of a fold took, and where."""

    minutes: float
    where: str


def describe_effort(settings: Settings, trainings: Mapping[str, list[str]]) -> str:
    """`unet_small 14 min a fold (here)` of the trainings on record; empty if there are none.

    `trainings` are the models to be trained, as paths, by experiment.
    """
    found = {name: find_effort(settings, name, models[0]) for name, models in trainings.items()}
    known = {name: effort for name, effort in found.items() if effort}
    if len(known) > NAMED:
        total = sum(effort.minutes * len(trainings[name]) for name, effort in known.items())
        places = ", ".join(sorted({effort.where for effort in known.values()}))
        return f"{format_minutes(total)} one after the other ({places})"
    return ", ".join(
        f"{name} {format_minutes(effort.minutes)} a fold ({effort.where})" for name, effort in known.items()
    )


def find_effort(settings: Settings, name: str, model: str) -> Effort | None:
    """Minutes of other folds here, of `make compare` or of the leaderboard's records, or None."""
    run = Path(model).parent.parent
    here = [minutes for log in run.glob("fold_*/log.csv") if (minutes := _read_log(log)) is not None]
    if here:
        return Effort(max(here), "here")
    if run.parent == Path(settings["RUNS"]):
        return _read_record(settings, name)
    return _read_table(settings, name)


def _read_log(path: Path) -> float | None:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return _check(float(list(csv.DictReader(file))[-1]["minutes"]))
    except (OSError, ValueError, KeyError, IndexError, TypeError, csv.Error):
        return None


def _read_record(settings: Settings, name: str) -> Effort | None:
    try:
        text = Path(settings.path("SUBMISSIONS", "scores", f"{name}.json")).read_text(encoding="utf-8")
        record = json.loads(text)
        effort, folds = record["effort"], len(record["fold"]) or len(settings.all_folds)
        return Effort(_check(effort["minutes"] / folds), str(effort["hardware"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def _read_table(settings: Settings, name: str) -> Effort | None:
    try:
        with open(settings.path("COMPARISONS", "compare.csv"), encoding="utf-8", newline="") as file:
            (row,) = (row for row in csv.DictReader(file) if row["experiment"] == name)
        return Effort(_check(float(row["minutes"])), f"{row['steps']} steps, {row['hardware']}")
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return None


def _check(minutes: float) -> float:
    if not 0 <= minutes < math.inf:
        raise ValueError(f"{minutes} minutes")
    return minutes


def format_minutes(minutes: float) -> str:
    """`14 min`, or `2.5 h`."""
    return f"{max(1, round(minutes))} min" if minutes < 90 else f"{minutes / 60:.1f} h"
