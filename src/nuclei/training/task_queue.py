"""A queue of commands: each starts when its inputs are done and a slot is free, to a deadline."""

import logging
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
LEAVE_SECONDS = 30.0
"""What a stopped command has to leave its files whole before it is killed."""


@dataclass(frozen=True)
class Task:
    """A command; it is done where its `target` exists."""

    name: str
    command: Sequence[str]
    target: Path
    log: Path
    needs: tuple[str, ...] = ()
    """Names of the tasks that must be done before."""
    places: int = 1
    """Places that it takes; one that takes all runs alone."""


class Process(Protocol):
    """What the queue wants of a started command; `subprocess.Popen` has it."""

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


@dataclass
class Outcome:
    """Names of the tasks by what became of them."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)
    """Exit codes of those that ended without their target."""
    stopped: list[str] = field(default_factory=list)
    """Those that ran when time was over."""
    waiting: list[str] = field(default_factory=list)
    """Those that never started."""


@dataclass(frozen=True)
class Clock:
    """The time in seconds, and a way to wait."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def start_process(task: Task, environment: Mapping[str, str]) -> Process:
    """Starts a task's command; what it prints goes to the task's log."""
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with open(task.log, "ab") as file:
        return subprocess.Popen(
            list(task.command), stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=dict(environment)
        )


def run_tasks(
    tasks: Sequence[Task],
    places: int,
    deadline: float,
    start: Callable[[Task], Process],
    clock: Clock | None = None,
    report: Callable[[Sequence[str]], None] = lambda running: None,
) -> Outcome:
    """Runs the tasks in their order, as many at once as there are places, until `deadline`.

    Tasks whose target exists are done already. At the deadline those that run are told to stop.
    `report` is called at every turn with the names of those that run.
    """
    clock = clock or Clock()
    outcome = Outcome(done=[task.name for task in tasks if task.target.exists()])
    queue = [task for task in tasks if task.name not in outcome.done]
    running: dict[str, tuple[Task, Process]] = {}
    try:
        while clock.now() < deadline:
            _collect(running, outcome)
            _start_ready(queue, running, outcome, places, start)
            if not running:
                break
            report(list(running))
            clock.sleep(min(POLL_SECONDS, max(0.01, deadline - clock.now())))
        _collect(running, outcome)
        outcome.stopped = list(running)
    finally:
        _stop([process for _, process in running.values()], clock)
    outcome.waiting = [task.name for task in queue]
    return outcome


def _collect(running: dict[str, tuple[Task, Process]], outcome: Outcome) -> None:
    """Moves the tasks that have ended from `running` to the outcome."""
    for name, (task, process) in list(running.items()):
        code = process.poll()
        if code is None:
            continue
        del running[name]
        if code == 0 and task.target.exists():
            outcome.done.append(name)
            log.info("done: %s", name)
        else:
            outcome.failed[name] = code
            log.warning("failed: %s (exit code %d), see %s", name, code, task.log)


def _start_ready(
    queue: list[Task],
    running: dict[str, tuple[Task, Process]],
    outcome: Outcome,
    places: int,
    start: Callable[[Task], Process],
) -> None:
    """Starts the first tasks of the queue that need nothing more and find places."""
    free = places - sum(task.places for task, _ in running.values())
    for task in list(queue):
        if task.places <= free and all(need in outcome.done for need in task.needs):
            queue.remove(task)
            running[task.name] = task, start(task)
            free -= task.places
            log.info("start: %s", task.name)


def _stop(processes: Sequence[Process], clock: Clock) -> None:
    """Tells processes to stop, and kills those that have not left after LEAVE_SECONDS."""
    for process in processes:
        process.terminate()
    until = clock.now() + LEAVE_SECONDS
    while any(process.poll() is None for process in processes) and clock.now() < until:
        clock.sleep(POLL_SECONDS)
    for process in processes:
        if process.poll() is None:
            process.kill()
