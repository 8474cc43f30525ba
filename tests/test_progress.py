import io
import logging
import sys

import pytest

from nuclei import cli, progress
from nuclei.progress import Progress, format_duration, name_job, show_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves by `clock.step` seconds at every look."""

    class Clock:
        now, step = 0.0, 0.0

        def __call__(self):
            self.now += self.step
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def run_steps(count, **settings):
    with Progress(name_job("train", "first", 0), "steps", count, **settings) as steps:
        for _ in range(count):
            steps.update()
            steps.describe("loss 0.5")


def test_a_job_without_a_terminal_writes_whole_lines_with_its_name_and_the_time_left(clock, caplog):
    caplog.set_level("INFO")
    clock.step = 4.0
    run_steps(8)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "train    first fold 0: 3 of 8 steps, loss 0.5; 20 s left"
    assert lines[-1] == "train    first fold 0: 8 steps in 36 s, loss 0.5"
    assert all(line.startswith("train    first fold 0: ") for line in lines)
    assert len(lines) == 3


def test_a_failed_job_has_no_last_line_and_a_hidden_one_none_at_all(caplog):
    caplog.set_level("INFO")
    with pytest.raises(ZeroDivisionError), Progress("train", "steps", 2):
        1 / 0  # noqa: B018
    run_steps(3, shown=False)
    assert caplog.text == ""


@pytest.mark.parametrize(("flags", "fits"), [("", True), (" -j2 --jobserver-auth=3,4", False)])
def test_a_bar_is_drawn_only_where_no_other_job_shares_the_terminal(monkeypatch, flags, fits):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("MAKEFLAGS", flags)
    run_steps(2)
    assert ("\r" in sys.stderr.getvalue()) == fits


def test_a_message_never_lands_in_the_line_of_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    logger = logging.getLogger("apart")
    logger.propagate = False
    logger.addHandler(cli.MessageHandler())
    with Progress("train", "steps", 2):
        logger.warning("a message")
    before = terminal.getvalue().split("a message")[0]
    assert before.endswith("\r")
    assert "a message\n" in terminal.getvalue()


def test_a_loop_shows_the_number_of_its_items(clock, caplog):
    caplog.set_level("INFO")
    clock.step = 11.0
    assert list(show_progress([5, 6], "score", "images", summary=False)) == [5, 6]
    assert [record.getMessage() for record in caplog.records] == [
        "score: 1 of 2 images; 11 s left",
        "score: 2 of 2 images; 1 s left",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0.1, "1 s"), (89, "89 s"), (720, "12 min"), (9000, "2.5 h")])
def test_a_duration_is_in_its_own_unit(seconds, text):
    assert format_duration(seconds) == text
