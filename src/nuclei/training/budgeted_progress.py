"""Progress of `make train-all`: images a second over all trainings, and the table of scores."""

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from nuclei.errors import UserError
from nuclei.evaluation.scores import read_tuned_score
from nuclei.models.checkpoint_file import RESULT
from nuclei.training.budgeted_tasks import Places, Recorded
from nuclei.training.speed import peak_fraction
from nuclei.training.task_queue import Clock, Outcome
from nuclei.training.time_plan import Training

log = logging.getLogger(__name__)

REPORT_SECONDS = 20.0


@dataclass
class Summary:
    """What a run has come to."""

    outcome: Outcome
    table: pd.DataFrame
    """One row an experiment: progress, speed and scores."""
    text: str
    """Images a second and the fraction of the peak of all trainings together."""
    trained: int
    trainings: int

    @property
    def unfinished(self) -> list[str]:
        return [*self.outcome.failed, *self.outcome.stopped, *self.outcome.waiting]


def read_log(folder: Path) -> dict[str, float]:
    """The last row of a training's log.csv, without its empty cells; empty where there is none yet.

    Raises:
        UserError: the file holds something else.
    """
    path = folder / "log.csv"
    if not path.is_file():
        return {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: float(value) for name, value in rows[-1].items() if value} if rows else {}
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path}: no log of a training ({error!s:.100}); delete {folder} to train it again"
        ) from error


@dataclass
class Throughput:
    """Images that were trained on in this call, and the time that it took."""

    recorded: Recorded
    places: Places
    clock: Clock
    begun: float = 0.0
    last: float | None = None
    """When a training was last seen to run."""
    before: dict[str, float] = field(default_factory=dict)
    reported: float = 0.0

    def __post_init__(self) -> None:
        self.before = self.images()
        self.begun = self.reported = self.clock.now()

    def images(self) -> dict[str, float]:
        """Images that each training has seen."""
        seen = {}
        for each in self.recorded.trainings:
            done = read_log(self.places.folder(each)).get("step", 0.0)
            seen[each.name] = done * each.batch_size
        return seen

    def report(self, running: Sequence[str]) -> None:
        """Logs the speed of all trainings that run, every REPORT_SECONDS."""
        now = self.clock.now()
        if any(name.startswith("train ") for name in running):
            self.last = now
        if now - self.reported < REPORT_SECONDS:
            return
        self.reported = now
        by_name = {f"train {each.name}": each for each in self.recorded.trainings}
        trainings = [by_name[name] for name in running if name in by_name]
        logs = {each.name: read_log(self.places.folder(each)) for each in trainings}
        speeds = {name: row["images_per_second"] for name, row in logs.items() if row}
        if speeds:
            steps = [f"{name} {logs[name]['step']:.0f}" for name in speeds]
            log.info("%s; steps: %s", self.describe(speeds), ", ".join(steps))

    def describe(self, images_per_second: Mapping[str, float]) -> str:
        """Images a second of all together, and which fraction of the peak that is."""
        experiments = {each.name: each.experiment for each in self.recorded.trainings}
        peak = self.recorded.machine.peak
        fraction = sum(
            peak_fraction(self.recorded.operations[experiments[name]], speed, peak)
            for name, speed in images_per_second.items()
        )
        total = sum(images_per_second.values())
        return (
            f"{total:,.0f} images a second, {fraction:.1%} of the peak of {peak / 1e12:.3g} TFLOP/s in bfloat16"
        )

    def overall(self) -> str:
        """The same over all of this call's training."""
        if self.last is None or self.last <= self.begun:
            return "nothing was trained in this call"
        seen, seconds = self.images(), self.last - self.begun
        return self.describe({name: (seen[name] - self.before[name]) / seconds for name in seen})


def summarise(recorded: Recorded, places: Places, outcome: Outcome, throughput: Throughput) -> Summary:
    """The table of all experiments, and what is not finished."""
    rows = []
    for name in recorded.plan.steps:
        trainings = [each for each in recorded.trainings if each.experiment == name]
        rows.append(describe_experiment(name, trainings, recorded, places))
    trained = sum((places.folder(each) / RESULT).is_file() for each in recorded.trainings)
    return Summary(outcome, pd.DataFrame(rows), throughput.overall(), trained, len(recorded.trainings))


def describe_experiment(
    name: str, trainings: Sequence[Training], recorded: Recorded, places: Places
) -> dict[str, Any]:
    """A row of the table: the mean speed of a training, and the scores that there are."""
    logs = [read_log(places.folder(each)) for each in trainings]
    done = sum((places.folder(each) / RESULT).is_file() for each in trainings)
    speeds = [each["images_per_second"] for each in logs if "images_per_second" in each]
    scores = [each["validation_score"] for each in logs if "validation_score" in each]
    speed = sum(speeds) / len(speeds) if speeds else 0.0
    fraction = peak_fraction(recorded.operations[name], speed, recorded.machine.peak)
    cv = places.out / name / "cv.json"
    return {
        "experiment": name,
        "trained": f"{done}/{len(trainings)}",
        "steps": recorded.plan.steps[name],
        "images/s": f"{speed:,.0f}",
        "of peak": f"{fraction:.1%}",
        "minutes": round(sum(each.get("minutes", 0.0) for each in logs), 1),
        "validation": f"{sum(scores) / len(scores):.4f}" if scores else "",
        "out of fold": f"{read_tuned_score(cv).score:.4f}" if cv.is_file() else "",
    }
