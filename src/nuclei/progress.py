"""Progress of a stage: a bar on a terminal that the job has to itself, plain lines everywhere else.

Jobs of `make -j` share a terminal, on which their bars would overwrite each other. Each then writes
whole lines that begin with its own name, at intervals, as it does where the output is no terminal.
"""

import logging
import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Self, TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)
Item = TypeVar("Item")

STAGE_WIDTH = 9
"""Columns of a stage's name, as in the lines of make."""
SHORTEST, LONGEST = 10.0, 60.0
"""Seconds between two lines of a job: few at first, more the longer it runs."""
GROWTH = 0.1
"""Part of the time passed after which the next line is due, between those two."""


def name_job(stage: str, experiment: str, fold: int | str | None = None) -> str:
    """`train    unet_small fold 0`."""
    name = f"{stage:<{STAGE_WIDTH}}{experiment}"
    return name if fold is None else f"{name} fold {fold}"


def bar_fits() -> bool:
    """Whether a bar can be drawn: on a terminal that no other job of the same make writes to."""
    return sys.stderr.isatty() and "--jobserver" not in os.environ.get("MAKEFLAGS", "")


def above_bars() -> AbstractContextManager[None]:
    """Clears the bars of this process while open, so that a message has a line of its own."""
    return tqdm.external_write_mode(file=sys.stderr) if bar_fits() else nullcontext()


def format_duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Progress:
    """How far a job has come, as a context manager; a job without a `total` says what has passed.

    `unit` is a plural. The last line, with the time that the job took, is left out where it fails
    or where `summary` is false. Nothing is shown where `shown` is false.
    """

    def __init__(
        self,
        job: str,
        unit: str,
        total: int | None = None,
        done: int = 0,
        summary: bool = True,
        shown: bool = True,
    ) -> None:
        self.job, self.unit, self.total, self.done = job, unit, total, done
        self.summary, self.shown = summary, shown
        self._first, self._note = done, ""
        self._begin = self._said = time.monotonic()
        self._bar: Any = None
        if shown and bar_fits():
            self._bar = tqdm(total=total, initial=done, desc=job, unit=f" {unit}", mininterval=1, leave=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is None and self.shown and self.summary:
            passed = format_duration(time.monotonic() - self._begin)
            log.info("%s", self._line(f"{self.done} {self.unit} in {passed}"))

    def update(self, count: int = 1) -> None:
        """Counts units as done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if self.shown and now - self._said >= min(LONGEST, max(SHORTEST, GROWTH * (now - self._begin))):
            self._said = now
            log.info("%s", self._line(self._count()) + self._time(now - self._begin))

    def describe(self, note: str) -> None:
        """Sets what is said beside the count, such as the loss."""
        self._note = note
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)

    def _count(self) -> str:
        return f"{self.done} {self.unit}" if self.total is None else f"{self.done} of {self.total} {self.unit}"

    def _line(self, text: str) -> str:
        return ", ".join(filter(None, (f"{self.job}: {text}", self._note)))

    def _time(self, passed: float) -> str:
        if self.total is None or self.done == self._first:
            return f"; {format_duration(passed)} so far"
        left = passed / (self.done - self._first) * (self.total - self.done)
        return f"; {format_duration(left)} left"


def show_progress(
    items: Iterable[Item],
    job: str,
    unit: str,
    total: int | None = None,
    summary: bool = True,
    shown: bool = True,
) -> Iterator[Item]:
    """The items one after the other, with the progress of the loop over them."""
    if total is None and isinstance(items, Collection):
        total = len(items)
    with Progress(job, unit, total, summary=summary, shown=shown) as progress:
        for item in items:
            yield item
            progress.update()
