"""The queue of commands of `make train-all`, with commands on a simulated clock."""

from pathlib import Path

import pytest

from nuclei.training.task_queue import Clock, Task, run_tasks


class World:
    """A clock that moves on a wait, and commands that write their target when due."""

    def __init__(self, folder, seconds):
        self.folder, self.seconds, self.time = folder, seconds, 0.0
        self.log, self.terminated = [], []
        self.clock = Clock(lambda: self.time, self.sleep)

    def sleep(self, seconds):
        self.time += seconds

    def task(self, name, needs=(), places=1):
        return Task(name, ["command"], self.folder / name, self.folder / "log", tuple(needs), places)

    def start(self, task):
        self.log.append((task.name, round(self.time)))
        return Command(self, task)

    def run(self, tasks, places, deadline):
        return run_tasks(tasks, places, deadline, self.start, self.clock)


class Command:
    def __init__(self, world, task):
        self.world, self.task, self.ends = world, task, world.time + abs(world.seconds[task.name])
        self.stopped = False

    def poll(self):
        if self.stopped:
            return 143
        if self.world.time < self.ends:
            return None
        if self.world.seconds[self.task.name] < 0:
            return 1
        Path(self.task.target).touch()
        return 0

    def terminate(self):
        self.stopped = True
        self.world.terminated.append(self.task.name)

    kill = terminate


@pytest.fixture
def world(tmp_path):
    return World(tmp_path, {"a": 10, "b": 20, "c": 5, "d": 5})


def test_a_task_starts_when_a_place_is_free_and_what_it_needs_is_done(world):
    tasks = [world.task("a"), world.task("b"), world.task("c", needs=["b"]), world.task("d")]
    outcome = world.run(tasks, places=2, deadline=100)
    assert world.log == [("a", 0), ("b", 0), ("d", 10), ("c", 20)]
    assert sorted(outcome.done) == ["a", "b", "c", "d"]
    assert not outcome.waiting


def test_a_task_of_all_places_runs_alone(world):
    outcome = world.run([world.task("a"), world.task("c", places=2)], places=2, deadline=100)
    assert world.log == [("a", 0), ("c", 10)]
    assert len(outcome.done) == 2


def test_at_the_deadline_what_runs_is_told_to_stop_and_nothing_else_starts(world):
    outcome = world.run([world.task(name) for name in "abcd"], places=1, deadline=15)
    assert outcome.done == ["a"]
    assert outcome.stopped == world.terminated == ["b"]
    assert outcome.waiting == ["c", "d"]
    assert world.time < 17


def test_the_same_call_goes_on_with_what_is_not_done(world):
    tasks = [world.task(name) for name in "abcd"]
    world.run(tasks, places=1, deadline=15)
    world.log.clear()
    outcome = world.run(tasks, places=1, deadline=100)
    assert [name for name, _ in world.log] == ["b", "c", "d"]
    assert sorted(outcome.done) == ["a", "b", "c", "d"]


def test_a_failure_stops_what_needs_it_and_nothing_else(world):
    world.seconds["a"] = -3
    outcome = world.run(
        [world.task("a"), world.task("b", needs=["a"]), world.task("c")], places=2, deadline=100
    )
    assert outcome.failed == {"a": 1}
    assert outcome.done == ["c"]
    assert outcome.waiting == ["b"]


def test_an_exception_leaves_no_command_behind(world):
    def report(running):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tasks([world.task("a")], 1, 100, world.start, world.clock, report)
    assert world.terminated == ["a"]
