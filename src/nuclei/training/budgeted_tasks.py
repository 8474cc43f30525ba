"""Commands of `make train-all`: speed measurement, training, prediction, tuning; their costs."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nuclei.config import Config
from nuclei.config_files import read_config
from nuclei.io.records import Record
from nuclei.models.checkpoint_file import RESULT
from nuclei.training.task_queue import Task
from nuclei.training.time_plan import Concurrency, Machine, Plan, Speed, Training, in_order


class Request(Record):
    """What is to be trained, and in which time."""

    minutes: float
    members: tuple[str, ...]
    on_all_images: tuple[str, ...]
    folds: tuple[str, ...]
    device: str
    compiled: bool = False
    at_once: int = 0
    """Trainings at the same time; chosen where 0."""


class Recorded(Record):
    """Content of `plan.json`: all that decides the steps of the trainings."""

    request: Request
    machine: Machine
    concurrency: Concurrency
    speeds: dict[str, Speed]
    operations: dict[str, int]
    """Multiply-adds of a forward pass of one crop, by experiment."""
    trainings: tuple[Training, ...]
    plan: Plan


@dataclass(frozen=True)
class Places:
    """Folders and files."""

    configs: Path
    processed: Path
    splits: Path
    external: Path | None
    out: Path
    """Folder of the plan, its configs and its runs."""
    scripts: Path

    def config(self, experiment: str) -> Path:
        """The planned config of an experiment, which extends its own."""
        return self.out / "configs" / f"{experiment}.toml"

    def speeds(self, request: Request) -> Path:
        """Folder of the measurements."""
        return self.out / "speed" / request.device.replace(":", "_")

    def folder(self, training: Training) -> Path:
        return self.out / training.name

    def command(self, script: str, *flags: object) -> list[str]:
        return [sys.executable, str(self.scripts / f"{script}.py"), *map(str, flags)]

    @property
    def data(self) -> list[object]:
        return ["--processed", self.processed, "--splits", self.splits]


def list_measurements(
    request: Request,
    places: Places,
    configs: Mapping[str, Config],
    concurrency: Concurrency,
    seconds: float,
    trainings: Sequence[Training],
) -> list[Task]:
    """Measurements of the experiments in turns, as many as fill the places."""
    names = list(configs)
    tasks = []
    for number in range(max(len(names), concurrency.at_once)):
        name = names[number % len(names)]
        fold = next(each.fold for each in trainings if each.experiment == name)
        target = places.speeds(request) / f"{name}.{number}.json"
        command = places.command(
            "measure_speed", "--config", places.configs / f"{name}.toml", *places.data, "--fold", fold,
            *external_flags(configs[name], places), *machine_flags(request, concurrency),
            "--seconds", seconds, "--out", target,
        )  # fmt: skip
        label = f"measure {name} {number}"
        tasks.append(Task(label, command, target, places.out / "logs" / f"measure_{name}_{number}.log"))
    return tasks


def external_flags(config: Config, places: Places) -> list[object]:
    return ["--external", places.external] if config.training.external and places.external else []


def machine_flags(request: Request, concurrency: Concurrency) -> list[object]:
    flags: list[object] = ["--device", request.device, "--workers", concurrency.workers]
    return [*flags, "--threads", concurrency.threads, *(["--compile"] if request.compiled else [])]


def list_tasks(recorded: Recorded, places: Places, scored: bool) -> list[Task]:
    """Training and prediction of each fold, then the joined maps and the tuning of each member."""
    speeds, steps = recorded.speeds, recorded.plan.steps
    durations = {
        each.name: steps[each.experiment] * each.batch_size / speeds[each.experiment].images_per_second
        for each in recorded.trainings
    }
    ordered = in_order(recorded.trainings, durations)
    # a prediction comes before the next training, so that what is trained is complete
    tasks = [predict_task(each, recorded, places) for each in ordered if each.prediction]
    tasks += [train_task(each, recorded, places) for each in ordered]
    for name in recorded.request.members if scored else ():
        tasks += score_tasks(name, recorded, places)
    return tasks


def train_task(training: Training, recorded: Recorded, places: Places) -> Task:
    config = read_config(places.config(training.experiment))
    command = places.command(
        "train", "--config", places.config(training.experiment), *places.data, "--fold", training.fold,
        "--out", places.folder(training), "--runs", places.out, *external_flags(config, places),
        *machine_flags(recorded.request, recorded.concurrency),
    )  # fmt: skip
    needs = tuple(f"train {need}" for need in training.needs)
    return task(f"train {training.name}", command, places.folder(training) / RESULT, places, needs)


def predict_task(training: Training, recorded: Recorded, places: Places) -> Task:
    folder = places.folder(training)
    command = places.command(
        "predict", "--checkpoint", folder / RESULT, "--config", places.config(training.experiment),
        *places.data, "--oof", folder / "oof.npz", "--test", folder / "test.npz",
        "--device", recorded.request.device, "--threads", recorded.concurrency.threads,
    )  # fmt: skip
    needs = (f"train {training.name}",)
    return task(f"predict {training.name}", command, folder / "test.npz", places, needs)


def score_tasks(name: str, recorded: Recorded, places: Places) -> list[Task]:
    """The out-of-fold maps of a member in one file, and cv.json tuned on them with all cores."""
    folds = [each for each in recorded.trainings if each.experiment == name and each.prediction]
    folder = places.out / name
    join = places.command(
        "ensemble", "--inputs", *(places.folder(each) / "oof.npz" for each in folds),
        "--out", folder / "oof.npz", "--index", places.processed / "index.csv", "--subset", "train",
    )  # fmt: skip
    tune = places.command(
        "tune", "--maps", folder / "oof.npz", *places.data, "--out", folder / "cv.json",
        "--workers", recorded.machine.cores,
    )  # fmt: skip
    predicted = tuple(f"predict {each.name}" for each in folds)
    everything = recorded.concurrency.at_once
    return [
        task(f"join {name}", join, folder / "oof.npz", places, predicted),
        task(f"tune {name}", tune, folder / "cv.json", places, (f"join {name}",), everything),
    ]


def task(
    name: str, command: list[str], target: Path, places: Places, needs: tuple[str, ...], taken: int = 1
) -> Task:
    written = places.out / "logs" / f"{name.replace(' ', '_').replace('/', '_')}.log"
    return Task(name, command, target, written, needs, taken)
