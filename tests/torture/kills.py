"""Kills the whole demo at moments spread evenly over its stages, and looks at what the plain command makes of it.

A chain is one folder in which the run is stopped once in every stage, each time by the same means
and at the same fraction of the stage, and continued by the plain command. At its end every result
must have the bytes of an undisturbed run, and no stage that was finished may have begun again.
`python -m torture.kills --kills 200` is a part of `make torture`.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from torture.demo import STAGE, Demo, Run, children, write_archive

FRACTIONS = (0.5, 0.9, 0.1, 0.97, 0.3, 0.8, 0.65, 0.2)
"""Of a stage's time, for one chain after the other."""
AT_ITS_END = 2.0
"""As a fraction: when the stage's last file has its name, and the process is still there."""
FULL_DISKS = (2_000, 60_000, 300_000)
"""Largest file in bytes that a run may write, one run after the other."""


def kill_group(run: Run) -> None:
    run.signal_group(signal.SIGKILL)


def kill_one(run: Run) -> None:
    """SIGKILL of the stage's own process: make lives, and ends with an error."""
    for child in children(run.process.pid):
        os.kill(child, signal.SIGKILL)


def kill_make(run: Run) -> None:
    """SIGKILL of make alone: the stage's process lives on and writes its files."""
    run.process.kill()


def terminate(run: Run) -> None:
    run.signal_group(signal.SIGTERM)


def interrupt(run: Run) -> None:
    run.signal_group(signal.SIGINT)


MEANS: tuple[Callable[[Run], None], ...] = (kill_group, kill_one, terminate, interrupt, kill_make)


@dataclass
class Clean:
    """An undisturbed run: its stages with their seconds and last files, and all digests."""

    stages: list[str]
    seconds: list[float]
    last_files: list[str]
    digests: dict[str, str]


@dataclass
class Report:
    """What the chains have shown."""

    kills: Counter[str] = field(default_factory=Counter)
    chains: int = 0
    faults: list[str] = field(default_factory=list)


def measure(folder: Path, archive: Path) -> Clean:
    """Runs the demo undisturbed."""
    demo = Demo(folder, archive)
    run = demo.start()
    before: set[str] = set()
    last_files: list[str] = []
    while run.poll():
        if len(run.began) > len(last_files) + 1:  # one more has begun, so the one before it is done
            before = note_last(demo, before, last_files)
        time.sleep(0.01)
    if run.process.returncode:
        raise SystemExit(f"the undisturbed run failed: {run.tail()}")
    note_last(demo, before, last_files)
    times = [began for began, _ in run.began] + [time.monotonic()]
    seconds = [after - at for at, after in pairwise(times)]
    return Clean([stage for _, stage in run.began], seconds, last_files, demo.digests())


def note_last(demo: Demo, before: set[str], last_files: list[str]) -> set[str]:
    """Adds the newest of the files that a stage wrote; returns all that are there now."""
    files = demo.files()
    new = [path for name, path in files.items() if name not in before]
    newest = max(new, key=lambda path: path.stat().st_mtime_ns, default=None)
    last_files.append(str(newest.relative_to(demo.folder)) if newest else "")
    return set(files)


def torture(kills: int, jobs: int, say: Callable[[str], None] = print) -> Report:
    """Chains of kills until there were `kills`, two makes at once, and runs on a full disk."""
    report = Report()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        archive = write_archive(folder / "archive")
        clean = measure(folder / "clean", archive)
        say(
            f"undisturbed: {len(clean.stages)} stages in {sum(clean.seconds):.0f} s, {len(clean.digests)} files"
        )
        plans = list(plan(kills, len(clean.stages)))
        with ThreadPoolExecutor(jobs) as pool:
            work = [pool.submit(chain, folder / f"chain_{number}", archive, clean, *one, report, say)
                    for number, one in enumerate(plans)]  # fmt: skip
            work += [pool.submit(two_at_once, folder / "two", archive, clean, report, say)]
            work += [pool.submit(full_disk, folder / "full", archive, clean, report, say)]
            for one in work:
                one.result()
    return report


def plan(kills: int, stages: int) -> Iterator[tuple[Callable[[Run], None], float, list[int]]]:
    """Means, fraction and stages of every chain; every third one kills at the process's own end."""
    number = 0
    while kills > 0:
        fraction = AT_ITS_END if number % 3 == 2 else FRACTIONS[(number - number // 3) % len(FRACTIONS)]
        count = min(kills, stages)
        # of few kills, spread over the stages
        yield MEANS[number % len(MEANS)], fraction, [stages * place // count for place in range(count)]
        kills -= count
        number += 1


def chain(
    folder: Path, archive: Path, clean: Clean, means: Callable[[Run], None], fraction: float, stages: list[int],
    report: Report, say: Callable[[str], None],
) -> None:  # fmt: skip
    """One folder, stopped once in every one of the `stages`, and finished."""
    started, demo, label = time.monotonic(), Demo(folder, archive), f"{means.__name__} at {fraction:g}"
    for number in stages:
        finished = finished_stages(demo, clean)
        run = demo.start()
        if not wait_for_moment(demo, run, clean, number, fraction):
            break
        means(run)
        run.wait()
        report.kills[means.__name__ + (", at the process's end" if fraction == AT_ITS_END else "")] += 1
        check_run(demo, run, finished, f"{label} in {name_of(clean.stages[number])}", report)
        time.sleep(0.5 if means is kill_make else 0)
    finish(demo, clean, label, report)
    say(f"{label}: {len(stages)} kills, {time.monotonic() - started:.0f} s")


def finished_stages(demo: Demo, clean: Clean) -> set[str]:
    """Commands whose last file is there. A process that make's end left behind may still add some."""
    both = zip(clean.stages, clean.last_files, strict=True)
    return {stage for stage, last in both if last and (demo.folder / last).is_file()}


def name_of(stage: str) -> str:
    found = STAGE.search(stage)
    return found[1] if found else stage


def wait_for_moment(demo: Demo, run: Run, clean: Clean, number: int, fraction: float) -> bool:
    """Waits for the moment in a stage; false where make ended before."""
    last = demo.folder / clean.last_files[number]
    while run.poll():
        began = [at for at, stage in run.began if stage == clean.stages[number]]
        if began and fraction == AT_ITS_END and last.is_file():
            return True
        if began and fraction != AT_ITS_END and time.monotonic() - began[0] >= fraction * clean.seconds[number]:
            return True
        if not began and last.is_file() and clean.last_files[number]:
            return True  # it was finished before: a kill in whatever runs now
        time.sleep(0.005)
    return False


def check_run(demo: Demo, run: Run, finished: set[str], label: str, report: Report) -> None:
    again = finished & {stage for _, stage in run.began}
    report.faults += [f"{label}: a finished stage began again: {stage}" for stage in again]
    if "Traceback" in run.log.read_text(errors="replace"):
        report.faults.append(f"{label}: a traceback: {run.tail()}")


def finish(demo: Demo, clean: Clean, label: str, report: Report) -> None:
    """The plain command to its end; the results must be those of the undisturbed run, and stay so."""
    finished, run = finished_stages(demo, clean), demo.start()
    if run.wait():
        report.faults.append(f"{label}: the plain command failed: {run.tail()}")
        return
    check_run(demo, run, finished, label, report)
    compare(demo, clean, label, report)
    report.chains += 1


def compare(demo: Demo, clean: Clean, label: str, report: Report) -> None:
    found = demo.digests()
    for name in sorted(found.keys() | clean.digests.keys()):
        if found.get(name) != clean.digests.get(name):
            report.faults.append(f"{label}: {name} is not that of the undisturbed run")


def two_at_once(folder: Path, archive: Path, clean: Clean, report: Report, say: Callable[[str], None]) -> None:
    """Two makes of the same folder: both succeed, and each fold is trained once."""
    demo = Demo(folder, archive)
    runs = [demo.start(), demo.start()]
    for run in runs:
        if run.wait():
            report.faults.append(f"two makes at once: one failed: {run.tail()}")
    finish(demo, clean, "two makes at once", report)
    models = [name for name in clean.last_files if name.endswith("model.pt")]
    rows = [(demo.folder / Path(name).parent / "log.csv").read_text().count("\n") for name in models]
    said = [run.log.read_text(errors="replace").count("is the result of this training already") for run in runs]
    say(f"two makes at once: both ended; {sum(said)} of {len(models)} trainings were left to the other one")
    if len(set(rows)) > 1:
        report.faults.append(f"two makes at once: logs of {rows} rows")


def full_disk(folder: Path, archive: Path, clean: Clean, report: Report, say: Callable[[str], None]) -> None:
    """Runs that may not write large files, one after the other; then one with room."""
    demo = Demo(folder, archive)
    demo.start("--dry-run").wait()  # writes the rules, which are larger than some results
    for largest in FULL_DISKS:
        finished, run = finished_stages(demo, clean), demo.start(largest_file=largest)
        code = run.wait()
        report.kills["full disk"] += bool(code)
        check_run(demo, run, finished, f"files of {largest} bytes at most", report)
        if code and "error: " not in run.log.read_text(errors="replace"):
            report.faults.append(f"files of {largest} bytes at most: no one-line error: {run.tail()}")
    finish(demo, clean, "full disk", report)
    say(f"full disk: {len(FULL_DISKS)} runs")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--jobs", type=int, help="chains at once (default: 2, or 1 on a machine that is busy)")
    arguments = parser.parse_args()
    jobs = arguments.jobs or (2 if os.getloadavg()[0] < (os.cpu_count() or 1) else 1)
    started = time.monotonic()
    report = torture(arguments.kills, jobs, lambda line: print(line, flush=True))
    print("".join(f"{fault}\n" for fault in report.faults), end="")
    print(", ".join(f"{count} x {name}" for name, count in sorted(report.kills.items())))
    print(
        f"{sum(report.kills.values())} runs stopped, {report.chains} folders finished by the plain command, "
        f"{len(report.faults)} faults; {(time.monotonic() - started) / 60:.1f} minutes, {jobs} at once"
    )
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
