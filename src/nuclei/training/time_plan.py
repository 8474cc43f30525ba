"""The plan of `make train-all`: optimiser steps of each training, so that all finish in time.

Everything here is a pure function of measured speeds; nothing trains and nothing reads a clock.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from nuclei.config import Config
from nuclei.errors import UserError
from nuclei.io.names import Name
from nuclei.io.records import Record

MARGIN = 0.12
"""Fraction of the time that is planned for but not used: steps slow down when other work begins."""
MIN_STEPS = 20
"""Fewer steps than these, or than the config asks for, train nothing worth keeping."""
STOP_SECONDS = 10.0
"""The time at the end for the table of scores, and for a training that is stopped to leave."""
TUNING_SECONDS = 3.0
"""Core-seconds a megapixel to join the folds' maps and tune the post-processing on them.

Source: the search on 664 images in benchmarks/RESULTS.md, 2 x 143 s for 97 megapixels.
"""
TUNING_START = 6.0
"""Seconds a member until the commands that do it have loaded their libraries."""
CHECKPOINT_SECONDS = 30.0
"""Most time between two checkpoints: what a training that is stopped loses at most."""
MEMORY_EACH = 4096.0
"""Memory of the GPU in MiB that a training may take, for the number of trainings at once."""
CORES_EACH = 1.5
"""Cores for each training on a GPU: one starts its kernels, the others cut crops."""
VALIDATION_IMAGES = 8
"""Held-out images of the one validation that a planned training has, after its last step."""

Seconds = Annotated[float, Field(ge=0)]


class Machine(Record):
    """What trains."""

    device: str
    """cpu, cuda or mps."""
    name: str
    cores: int
    memory: float | None
    """Free memory of the GPU in MiB."""
    peak: float
    """Operations a second of a bfloat16 matrix product, measured."""


class Concurrency(Record):
    """How the machine is divided among trainings."""

    at_once: int
    """Trainings that run at the same time."""
    workers: int
    """Loader processes of each."""
    threads: int
    """Threads of torch of each."""


class Speed(Record):
    """Measured speed of an experiment while as many others train as will later."""

    images_per_second: Annotated[float, Field(gt=0)]
    start: Seconds
    """Seconds from the start of the process to its first steady step."""
    validation: Seconds
    """Seconds a megapixel of the validation during training."""
    prediction: Seconds
    """Seconds a megapixel of the prediction with test-time augmentation."""
    memory: float
    """Peak memory in MiB."""


class Training(Record):
    """One network to train, on all folds but one or on all images, and what follows it."""

    experiment: Name
    fold: str
    steps: int
    """Steps that its config asks for, which the plan does not exceed."""
    batch_size: int
    validation: float
    """Megapixels of the validation after the last step."""
    prediction: float
    """Megapixels to predict afterwards: the held-out and the test images."""
    needs: tuple[str, ...] = ()
    """Names of the trainings whose weights it starts from."""

    @property
    def name(self) -> str:
        return f"{self.experiment}/fold_{self.fold}"


class Plan(Record):
    """The number of steps by experiment, as a fraction of what the configs ask for."""

    fraction: float
    steps: dict[str, int]
    seconds: Seconds
    """Expected time of all trainings and predictions."""


def divide_machine(machine: Machine, trainings: int, at_once: int = 0) -> Concurrency:
    """How many of `trainings` run at once, unless `at_once` says it, and what each may use.

    On a CPU each has a thread of its own. On a GPU as many run as there are cores to feed them and
    memory to hold them.
    """
    if machine.device == "cpu":
        at_once = at_once or min(trainings, machine.cores)
        return Concurrency(at_once=at_once, workers=0, threads=max(1, machine.cores // at_once))
    by_cores = max(1, int(machine.cores / CORES_EACH))
    by_memory = max(1, int((machine.memory or 0) / MEMORY_EACH))
    at_once = at_once or min(trainings, by_cores, by_memory)
    return Concurrency(at_once=at_once, workers=max(1, math.ceil(machine.cores / at_once)), threads=1)


def plan_steps(
    trainings: Sequence[Training], speeds: Mapping[str, Speed], at_once: int, seconds: float
) -> Plan:
    """The steps of every experiment such that all trainings and predictions take at most `seconds`.

    Each experiment gets the same fraction of the steps that its config asks for, at most all.

    Raises:
        UserError: not even MIN_STEPS of each fit.
    """

    def expected(fraction: float) -> float:
        durations = {
            each.name: expected_seconds(each, speeds[each.experiment], steps_at(each.steps, fraction))
            for each in trainings
        }
        return finish_time(trainings, durations, at_once)

    usable = seconds * (1 - MARGIN)
    if expected(0.0) > usable:
        short = math.ceil((expected(0.0) - usable) / (1 - MARGIN) / 60)
        raise UserError(
            f"{len(trainings)} trainings of {MIN_STEPS} steps take {expected(0.0) / 60:.1f} "
            f"minutes here, and {max(0.0, usable) / 60:.1f} are left for them: add {short} to "
            "MINUTES=, or give fewer MEMBERS= or FOLDS=, or a faster DEVICE="
        )
    low, high = 0.0, 1.0
    if expected(1.0) > usable:
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if expected(middle) <= usable else (low, middle)
    else:
        low = 1.0
    steps = {each.experiment: steps_at(each.steps, low) for each in trainings}
    return Plan(fraction=low, steps=steps, seconds=expected(low))


def steps_at(steps: int, fraction: float) -> int:
    """A fraction of the steps, at least MIN_STEPS and at most all of them."""
    return min(steps, max(MIN_STEPS, math.floor(steps * fraction)))


def expected_seconds(training: Training, speed: Speed, steps: int) -> float:
    """Seconds of one training with its validation, and of its prediction in its own process."""
    seconds = speed.start + steps * training.batch_size / speed.images_per_second
    seconds += training.validation * speed.validation
    if training.prediction:
        seconds += speed.start + training.prediction * speed.prediction
    return seconds


def finish_time(trainings: Sequence[Training], durations: Mapping[str, float], at_once: int) -> float:
    """When the last of the trainings ends if the first free place always takes the next one."""
    free = [0.0] * at_once
    ended: dict[str, float] = {}
    for each in in_order(trainings, durations):
        begun = max([heapq.heappop(free), *(ended[need] for need in each.needs)])
        ended[each.name] = begun + durations[each.name]
        heapq.heappush(free, ended[each.name])
    return max(ended.values(), default=0.0)


def in_order(trainings: Sequence[Training], durations: Mapping[str, float]) -> list[Training]:
    """Order of the trainings: after their inputs; inputs of others first, then the longest."""
    by_name = {each.name: each for each in trainings}
    needed = {need for each in trainings for need in each.needs}

    def depth(training: Training) -> int:
        return 1 + max((depth(by_name[need]) for need in training.needs), default=-1)

    return sorted(trainings, key=lambda each: (depth(each), each.name not in needed, -durations[each.name]))


def tuning_seconds(megapixels: float, members: int, cores: int) -> float:
    """Expected seconds to tune the post-processing of the members on all their held-out images."""
    return members * (TUNING_START + 1.5 * TUNING_SECONDS * megapixels / cores)


def planned_settings(config: Config, steps: int, speed: Speed) -> dict[str, int | float]:
    """The `[training]` settings of a config that the plan changes.

    The EMA averages over the same fraction of a shorter training. Checkpoints are
    CHECKPOINT_SECONDS apart or closer. The only validation is the one after the last step.
    """
    training = config.training
    seconds_a_step = training.batch_size / speed.images_per_second
    per_epoch = max(1, min(training.steps_per_epoch, steps, round(CHECKPOINT_SECONDS / seconds_a_step)))
    return {
        "steps": steps,
        "steps_per_epoch": per_epoch,
        "ema_decay": shorten_ema(training.ema_decay, steps / training.steps),
        "validate_every": math.ceil(steps / per_epoch),
        "validation_images": VALIDATION_IMAGES,
    }


def shorten_ema(decay: float, fraction: float) -> float:
    """The decay whose average spans `fraction` of the steps that the given one spans."""
    if not decay or fraction >= 1:
        return decay
    return round(max(0.0, 1 - (1 - decay) / fraction), 6)
