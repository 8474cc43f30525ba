"""Ways to disturb a run of the demo in one of its stages."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torture.demo import Demo, Run, descendants, is_running, processor_seconds

Strike = Callable[[Run, int], None]
"""What is done to a run, given the process of its stage."""


@dataclass(frozen=True)
class Stage:
    """A stage of the undisturbed run: its command, the last file that it writes, its cost."""

    command: str
    last_file: str
    """Path in the folder; empty for one that make does every time."""
    seconds: float
    """Of a processor."""
    before: Path
    """Copy of the folder as it was when the stage began."""
    after: Path
    """Copy of the folder as it was when the next one began."""


@dataclass(frozen=True)
class Moment:
    """When a stage is struck: at a fraction of its processor time, or when its last file exists."""

    fraction: float = 1.0
    at_its_end: bool = False
    delay: float = 0.0
    """Seconds after the last file got its name."""

    def __str__(self) -> str:
        return f"{self.delay * 1000:.0f} ms after its last file" if self.at_its_end else f"{self.fraction:.0%}"


# --- what is done to a run ------------------------------------------------------------------------


def kill_group(run: Run, stage: int) -> None:
    run.signal_group(signal.SIGKILL)


def kill_stage(run: Run, stage: int) -> None:
    """SIGKILL of the stage's own process: make lives, and ends with an error."""
    send(stage, signal.SIGKILL)


def kill_worker(run: Run, stage: int) -> None:
    """SIGKILL of one process that the stage started, as the system does when memory is short."""
    workers = descendants(stage)
    send(random.Random(stage).choice(workers) if workers else stage, signal.SIGKILL)


def kill_make(run: Run, stage: int) -> None:
    """SIGKILL of make alone: the stage's process lives on and writes its files."""
    run.process.kill()


def terminate(run: Run, stage: int) -> None:
    run.signal_group(signal.SIGTERM)


def terminate_stage(run: Run, stage: int) -> None:
    send(stage, signal.SIGTERM)


def interrupt(run: Run, stage: int) -> None:
    """Ctrl-C: SIGINT to all processes of the terminal."""
    run.signal_group(signal.SIGINT)


def hang_up(run: Run, stage: int) -> None:
    """The terminal is closed."""
    run.signal_group(signal.SIGHUP)


STRIKES: tuple[Strike, ...] = (
    kill_group, terminate, kill_stage, interrupt, kill_make, kill_worker, terminate_stage, hang_up,
)  # fmt: skip


def send(process: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


# --- attacks: each leaves a folder in which make no longer runs -----------------------------------


def stop(demo: Demo, stage: Stage, moment: Moment, strike: Strike) -> list[Run]:
    """One run, struck once. What make's end leaves behind is waited for in half of the cases."""
    run = demo.start()
    process = wait_for(run, demo, stage, moment)
    if process is None:
        raise AssertionError(f"the stage did not begin: {run.tail()}")
    strike(run, process)
    run.wait()
    if strike is not kill_make or moment.fraction < 0.5:
        run.wait_for_stages()
    return [run]


def two_at_once(demo: Demo, stage: Stage, moment: Moment, killed: bool) -> list[Run]:
    """A second make begins while the stage runs; the first may be killed soon after."""
    runs = [demo.start(only=stage.command)]
    process = wait_for(runs[0], demo, stage, Moment(moment.fraction / 2))
    runs += [demo.start(only=stage.command)]
    if killed and process is not None:
        wait_for(runs[0], demo, stage, moment)
        kill_group(runs[0], process)
    for run in runs:
        run.wait()
        run.wait_for_stages()
    return runs


def full_disk(demo: Demo, stage: Stage, moment: Moment) -> list[Run]:
    """The folder lies on a disk that has no room for all that the stage writes.

    Where nothing can be mounted, files are limited in size instead, which gives another error.
    """
    used, written = size(stage.before), size(stage.after) - size(stage.before)
    room = max(0, int(written * moment.fraction)) // 4096 * 4096
    if not mount(demo.folder, 4 * size(stage.after) + 2**20):
        demo.fill(stage.before)
        runs = [demo.start(largest_file=max(room, 4096))]
        runs[0].wait()
        return runs
    demo.fill(stage.before)
    remount(demo.folder, used_on(demo.folder) + room)
    run = demo.start()
    run.wait()
    remount(demo.folder, 4 * size(stage.after) + used + 2**20)
    return [run]


def wait_for(run: Run, demo: Demo, stage: Stage, moment: Moment) -> int | None:
    """Waits for the moment; the stage's process. None where make ended before the stage began.

    A stage may be faster than it was: then the moment is its end, whatever make does then.
    """
    last = demo.folder / stage.last_file
    while run.poll() or run.began:
        process = next((number for number, command in run.began if command == stage.command), None)
        if process is None:
            if run.process.poll() is not None:
                return None
        elif not is_running(process):
            return process
        elif moment.at_its_end and stage.last_file:
            if last.is_file():
                time.sleep(moment.delay)
                return process
        elif processor_seconds(process) >= moment.fraction * stage.seconds:
            return process
        time.sleep(0.002)
    return None


# --- a small disk ---------------------------------------------------------------------------------


def mount(folder: Path, room: int) -> bool:
    """Whether an empty disk of `room` bytes could be put in place of the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def remount(folder: Path, room: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={max(room, 4096)}", str(folder)], check=True)


def unmount(folder: Path) -> None:
    """Also where nothing was mounted."""
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)


def used_on(folder: Path) -> int:
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def size(folder: Path) -> int:
    """Bytes that the files of a folder take on a disk of pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())
