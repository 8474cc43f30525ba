"""`make train-all`: a whole competition in the minutes that a machine is at hand.

Measures speeds, plans the steps of all trainings into the time, and runs trainings, predictions and
the tuning of the post-processing as commands. The plan is kept in `plan.json`, so the same command
goes on later with the same steps.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nuclei.config import Config
from nuclei.config_files import read_config
from nuclei.data.external_sets import open_external
from nuclei.data.prepared_images import Images
from nuclei.data.splits import choose_training
from nuclei.devices import choose_device
from nuclei.errors import UserError
from nuclei.inference.weights import SHIPPED
from nuclei.io.files import write_json, write_text
from nuclei.io.records import read_record
from nuclei.io.tables import read_splits
from nuclei.models.weights_file import SUFFIX
from nuclei.training.budgeted_progress import Summary, Throughput, summarise
from nuclei.training.budgeted_tasks import Places, Recorded, Request, list_measurements, list_tasks
from nuclei.training.speed import count_megapixels, count_operations, measure_machine
from nuclei.training.task_queue import Clock, Process, Task, run_tasks
from nuclei.training.time_plan import (
    STOP_SECONDS,
    VALIDATION_IMAGES,
    Concurrency,
    Machine,
    Speed,
    Training,
    divide_machine,
    plan_steps,
    planned_settings,
    tuning_seconds,
)

log = logging.getLogger(__name__)

PLAN = "plan.json"
ALL = "all"
"""As a fold: train on all images and hold out none."""
MEASURED_FRACTION, MOST_MEASURED = 0.02, 15.0
"""Seconds for which speeds are measured, as a fraction of the time, and at most."""


def train_all(
    request: Request,
    places: Places,
    begun: float,
    start: Callable[[Task], Process],
    clock: Clock | None = None,
) -> Summary:
    """Trains, predicts and scores all that is asked for until `begun` + minutes, as `clock` has it.

    Raises:
        UserError: a config that cannot be planned; missing data; too little time; another plan in
            the folder.
    """
    clock = clock or Clock()
    deadline = begun + request.minutes * 60 - min(STOP_SECONDS, request.minutes * 3)
    splits = read_splits(places.splits)
    path = places.out / PLAN
    if path.is_file():
        recorded = read_record(path, Recorded, f"delete {places.out} to plan again")
        check_same(recorded, request, path)
        log.info("going on with the steps of %s", path)
    else:
        recorded = make_plan(request, places, splits, deadline, start, clock)
        write_json(path, recorded.model_dump(mode="json"))
    log.info("%s", describe(recorded))
    throughput = Throughput(recorded, places, clock)
    tasks = list_tasks(recorded, places, is_scored(request, splits))
    outcome = run_tasks(tasks, recorded.concurrency.at_once, deadline, start, clock, throughput.report)
    return summarise(recorded, places, outcome, throughput)


def make_plan(
    request: Request,
    places: Places,
    splits: pd.DataFrame,
    deadline: float,
    start: Callable[[Task], Process],
    clock: Clock,
) -> Recorded:
    """Measures the speeds, plans the steps until `deadline`, and writes the configs that have them.

    Raises:
        UserError: as in `train_all`.
    """
    images, configs = Images(places.processed), read_configs(request, places)
    trainings = list_trainings(request, configs, images, splits)
    machine, concurrency, speeds = measure(request, places, configs, trainings, deadline, start, clock)
    left = deadline - clock.now()
    if is_scored(request, splits):
        megapixels = count_megapixels(images, images.ids("train"))
        left -= tuning_seconds(megapixels, len(request.members), machine.cores)
    recorded = Recorded(
        request=request,
        machine=machine,
        concurrency=concurrency,
        speeds=speeds,
        operations={name: count_operations(config) for name, config in configs.items()},
        trainings=tuple(trainings),
        plan=plan_steps(trainings, speeds, concurrency.at_once, left),
    )
    write_configs(recorded, configs, places)
    return recorded


def read_configs(request: Request, places: Places) -> dict[str, Config]:
    """The experiments' own configs by name.

    Raises:
        UserError: pseudo-labels, which need a tuned experiment; external sets that are not there.
    """
    names = dict.fromkeys([*request.members, *request.on_all_images])
    configs = {name: read_config(places.configs / f"{name}.toml") for name in names}
    for name, config in configs.items():
        if config.training.pseudo_labels:
            raise UserError(
                f"{name}: training.pseudo_labels needs a tuned experiment, which cannot be "
                "planned; take it out of MEMBERS="
            )
        try:
            open_external(places.external, config.training.external)
        except UserError as error:
            raise UserError(f"{name}: {error}; or leave the network out: ON_ALL_IMAGES= MEMBERS=") from error
    return configs


def list_trainings(
    request: Request, configs: Mapping[str, Config], images: Images, splits: pd.DataFrame
) -> list[Training]:
    """All folds of the members, and the networks on all images.

    Raises:
        UserError: the start of a fine-tuning is neither planned nor shipped; an unknown fold.
    """
    wanted = [(name, fold) for name in request.members for fold in request.folds]
    wanted += [(name, ALL) for name in request.on_all_images]
    names = {f"{name}/fold_{fold}" for name, fold in wanted}
    trainings = []
    for name, fold in wanted:
        training = configs[name].training
        held_out = sorted(choose_training(splits, fold, None, 0).validation)
        validated = held_out[:: max(1, len(held_out) // VALIDATION_IMAGES)]
        predicted = [*held_out, *images.ids("test")] if held_out else []
        trainings.append(
            Training(
                experiment=name,
                fold=fold,
                steps=training.steps,
                batch_size=training.batch_size,
                validation=count_megapixels(images, validated),
                prediction=count_megapixels(images, predicted),
                needs=find_needs(name, training.start, fold, names),
            )
        )
    return trainings


def find_needs(name: str, start: str, fold: str, planned: set[str]) -> tuple[str, ...]:
    """The planned training whose weights one starts from; none where they are shipped.

    Raises:
        UserError: neither planned nor shipped.
    """
    if not start:
        return ()
    # a network on all images starts from the one of the first fold
    number = "0" if fold == ALL else fold
    if (needed := f"{start}/fold_{number}") in planned:
        return (needed,)
    if not (SHIPPED / start / f"fold_{number}{SUFFIX}").is_file():
        raise UserError(f"{name} starts from {start}, fold {number}, which is not planned; add it to MEMBERS=")
    return ()


def is_scored(request: Request, splits: pd.DataFrame) -> bool:
    """Whether all folds are trained, so that the post-processing can be tuned out of fold."""
    return set(request.folds) == {str(fold) for fold in splits.fold.unique()}


def show(value: Any) -> str:
    """A value of a request, lists as words."""
    return " ".join(value) if isinstance(value, list) else str(value)


def check_same(recorded: Recorded, request: Request, path: Path) -> None:
    """Refuses to go on with a plan for something else.

    Raises:
        UserError: with what was planned.
    """
    before, now = (each.model_dump(mode="json") for each in (recorded.request, request))
    changed = [f"{key} was {show(before[key])}, is {show(now[key])}" for key in now if before[key] != now[key]]
    if changed:
        raise UserError(f"{path}: {'; '.join(changed)}; delete the folder to plan again, or ask for the same")


def measure(
    request: Request,
    places: Places,
    configs: Mapping[str, Config],
    trainings: Sequence[Training],
    deadline: float,
    start: Callable[[Task], Process],
    clock: Clock,
) -> tuple[Machine, Concurrency, dict[str, Speed]]:
    """The machine, how it is divided, and the speed of each experiment while all places are taken.

    Raises:
        UserError: a measurement failed.
    """
    machine = measure_machine(choose_device(request.device))
    unbound = sum(not training.needs for training in trainings)
    concurrency = divide_machine(machine, unbound, request.at_once)
    seconds = min(MOST_MEASURED, MEASURED_FRACTION * request.minutes * 60)
    tasks = list_measurements(request, places, configs, concurrency, seconds, trainings)
    log.info("measuring %s, %d at once", ", ".join(configs), concurrency.at_once)
    outcome = run_tasks(tasks, concurrency.at_once, deadline, start, clock)
    if len(outcome.done) < len(tasks):
        raise UserError(
            "the speed was not measured: "
            f"{[*outcome.failed, *outcome.stopped, *outcome.waiting][:3]}; see "
            f"{places.out / 'logs'}"
        )
    speeds: dict[str, Speed] = {}
    for name in configs:
        paths = sorted(places.speeds(request).glob(f"{name}.*.json"))
        speeds[name] = slowest([read_record(path, Speed, "delete it") for path in paths])
    return machine, concurrency, speeds


def slowest(speeds: Sequence[Speed]) -> Speed:
    """The slowest of each measured time: trainings that start together end with the last one."""
    return Speed(
        images_per_second=min(each.images_per_second for each in speeds),
        start=max(each.start for each in speeds),
        validation=max(each.validation for each in speeds),
        prediction=max(each.prediction for each in speeds),
        memory=max(each.memory for each in speeds),
    )


def write_configs(recorded: Recorded, configs: Mapping[str, Config], places: Places) -> None:
    """Writes a config for each experiment that extends its own by the planned number of steps."""
    for name, config in configs.items():
        path, own = places.config(name), places.configs / f"{name}.toml"
        planned = planned_settings(config, recorded.plan.steps[name], recorded.speeds[name])
        path.parent.mkdir(parents=True, exist_ok=True)
        relative = os.path.relpath(own.absolute(), path.parent.absolute())
        lines = [f"# {name}, planned into {recorded.request.minutes:g} minutes.", f'extends = "{relative}"', ""]
        lines += ["[training]", *(f"{key} = {value}" for key, value in planned.items())]
        write_text(path, "\n".join(lines) + "\n")


def describe(recorded: Recorded) -> str:
    """The plan in one line."""
    plan, concurrency = recorded.plan, recorded.concurrency
    steps = ", ".join(f"{name} {count}" for name, count in plan.steps.items())
    return (
        f"plan: {len(recorded.trainings)} trainings, {concurrency.at_once} at once with "
        f"{concurrency.workers} loader processes each, {plan.fraction:.0%} of the configs' steps "
        f"({steps}), about {plan.seconds / 60:.1f} minutes on {recorded.machine.name}"
    )
