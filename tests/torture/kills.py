"""Disturbs the demo at moments spread over its stages, and checks what the command makes of it.

A case begins with a copy of the folder as it was when a stage began in an undisturbed run. The
plain command is started and disturbed in that stage; started once more, it must do what was left of
that stage, and nothing that was finished. Where the folder then is that of the undisturbed run,
file by file, all that follows is known to end in the same bytes. Where it is so right after the
disturbance, as where a stage died before it wrote anything, only the stage that would begin is
looked at. Every `WHOLE`-th case goes on to the end all the same. Part of `make torture`:
`python -m torture.kills --kills 200`.
"""

import argparse
import hashlib
import json
import re
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from queue import SimpleQueue

from torture.attacks import STRIKES, Moment, Stage, full_disk, stop, two_at_once, unmount
from torture.demo import STAGE, Demo, Run, is_running, processor_seconds, results, state, write_archive

WHOLE = 20
DELAYS = (0.0, 0.005, 0.02, 0.1)
"""Seconds after a stage's last file got its name, for the kills at the process's own end."""
RECORD = re.compile(r".*/(training|prediction|weights|members)\.json")
"""What make writes before a stage, so that its inputs are known."""
STARTING = re.compile(r'/scripts/\w+\.py", line \d+, in <module>\n +(from|import) |Fatal Python error: init')
ROOM = (0.0, 0.3, 0.7)
"""On the full disk, as a fraction of what the stage writes."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """An attack on a stage at a moment."""

    name: str
    stage: int
    moment: Moment
    attack: Callable[[Demo, Stage, Moment], list[Run]]
    goes_on: bool
    """Whether the case goes on to the end of the demo in any case."""


@dataclass
class Report:
    """What the cases have shown."""

    done: Counter[str] = field(default_factory=Counter)
    whole: int = 0
    """Cases that went on to the end of the demo."""
    known: int = 0
    """Cases that left the folder as it is in the undisturbed run, or as another case left it."""
    proven: set[str] = field(default_factory=set)
    """Digests of states from which the plain command went on as it should."""
    faults: list[str] = field(default_factory=list)


# --- the undisturbed run --------------------------------------------------------------------------


def measure(demo: Demo, copies: Path) -> tuple[list[Stage], dict[str, str]]:
    """Runs the demo undisturbed: its stages, and the digests of all results at the end."""
    demo.fill()
    copies.mkdir()
    run, seconds = demo.start(copies=copies), Counter[int]()
    while run.poll():
        for process, _ in run.began[-1:]:
            seconds[process] = max(seconds[process], processor_seconds(process))
        time.sleep(0.01)
    if run.process.returncode:
        raise SystemExit(f"the undisturbed run failed: {run.tail()}")
    shutil.copytree(demo.folder, copies / str(len(run.began) + 1))
    stages = []
    for number, (process, command) in enumerate(run.began, 1):
        before, after = copies / str(number), copies / str(number + 1)
        stages.append(Stage(command, last_file(before, after), seconds[process], before, after))
    return stages, results(demo.folder)


def last_file(before: Path, after: Path) -> str:
    """The newest of the results that a stage wrote; empty for a page that is written every time."""
    names = results(after).keys() - results(before).keys()
    new = [after / name for name in names if not RECORD.fullmatch(name)]
    newest = max(new, key=lambda path: path.stat().st_mtime_ns, default=None)
    return str(newest.relative_to(after)) if newest else ""


# --- the cases ------------------------------------------------------------------------------------


def plan(kills: int, stages: int) -> list[Case]:
    """`kills` runs that are stopped, as many in every stage, two makes at once, and full disks.

    Of a stage's kills three quarters are spread evenly over its time and the rest is at its own
    end; the means take turns, and begin with another one in every stage.
    """
    cases = []
    for number in range(kills):
        stage, turn = number % stages, number // stages
        at_end, others = turn % 4 == 3, (kills // stages + 1) * 3 // 4
        delay, place = (
            DELAYS[(turn // 4 + stage) % len(DELAYS)],
            (turn - turn // 4 + (stage % 5) / 5) / max(others, 1),
        )
        moment = Moment(at_its_end=True, delay=delay) if at_end else Moment(min(place, 0.99))
        strike = STRIKES[(turn + stage) % len(STRIKES)]
        attack = partial(stop, strike=strike)
        cases.append(Case(strike.__name__, stage, moment, attack, number % WHOLE == WHOLE - 1))
    return cases


def plan_others(stages: int) -> Iterator[Case]:
    for stage in range(stages):
        moment = Moment((stage % 4 + 0.5) / 4)
        both, one = partial(two_at_once, killed=False), partial(two_at_once, killed=True)
        yield Case("two makes at once", stage, moment, both, stage % 10 == 0)
        yield Case("two makes at once, one killed", stage, moment, one, False)
        yield Case("full disk", stage, Moment(ROOM[stage % len(ROOM)]), full_disk, stage % 10 == 5)


def try_case(case: Case, demo: Demo, stages: list[Stage], final: dict[str, str], report: Report) -> list[str]:
    """Faults of one attack, of what it left, and of the plain command after it."""
    stage = stages[case.stage]
    label = f"{case.name} at {case.moment} of {name_of(stage.command)} ({case.stage + 1})"
    shutil.rmtree(demo.place, ignore_errors=True)
    demo.fill(stage.before)
    try:
        runs = case.attack(demo, stage, case.moment)
        faults = check_stop(case, runs, stages) + check_whole(demo, stage, final)
        begun = (find_stage(stages, command) for run in runs for _, command in run.began)
        hit = max(begun, default=case.stage)
        faults += go_on(case, demo, stages, hit, runs, final, report)
    except Exception as error:  # of the torture itself, too: the other cases go on
        faults = [f"{type(error).__name__}: {error}"]
    finally:
        unmount(demo.folder)
    report.done[case.name + (", at the process's end" if case.moment.at_its_end else "")] += 1
    report.faults += [f"{label}: {fault}" for fault in faults]
    return faults


def check_stop(case: Case, runs: list[Run], stages: list[Stage]) -> list[str]:
    """What is wrong with the runs that were disturbed, by what they said and began."""
    faults = [f"a traceback: {run.tail()}" for run in runs if shows_traceback(run)]
    for run in runs:
        first = find_stage(stages, run.began[0][1]) if run.began else case.stage
        if first < case.stage:
            faults.append(f"began with {run.began[0][1]}")
    for run in runs:
        ended_well = not run.process.returncode or "Error 99" in run.says()
        if case.name == "two makes at once" and not ended_well:
            faults.append(f"a make failed: {run.tail()}")
        is_named = re.search("error: .*(?:/|no room)", run.says())
        if case.name == "full disk" and not ended_well and not is_named:
            faults.append(f"no error that names a file: {run.tail()}")
    if case.name.endswith("one killed") and runs[1].process.returncode and "Error 99" not in runs[1].says():
        faults.append(f"the make that was not killed failed: {runs[1].tail()}")
    return faults


def shows_traceback(run: Run) -> bool:
    """Except for a Ctrl-C during Python's own start and a script's first imports."""
    _, *traces = run.says().split("Traceback (most recent call last)")
    return any("KeyboardInterrupt" not in trace or not STARTING.search(trace) for trace in traces)


def check_whole(demo: Demo, stage: Stage, final: dict[str, str]) -> list[str]:
    """Results under their real names that are not whole. A report of before may still be there."""
    found = results(demo.folder)
    return [f"{name} is there and not whole" for name in found if found[name] != final.get(name)]


def go_on(
    case: Case,
    demo: Demo,
    stages: list[Stage],
    hit: int,
    earlier: list[Run],
    final: dict[str, str],
    report: Report,
) -> list[str]:
    """The plain command: which stages it repeats, and the files when the next begins or at the end.

    In a folder that is known already, no stage is let begin: which one would is all there is to
    see. A stage that outlived its make may be done when the plain command looks.
    """
    outlived = any(is_running(process) for each in earlier for process, _ in each.began)
    done = [bool(stage.last_file) and (demo.folder / stage.last_file).is_file() for stage in stages]
    first = hit + 1 if done[hit] else hit
    found = state(demo.folder)
    known = not outlived and (digest(found) in report.proven or found == state_of(stages[first].before))
    goes_on = case.goes_on or first == len(stages) - 1
    report.whole, report.known = report.whole + goes_on, report.known + (known and not goes_on)
    last = len(stages) - 1 if goes_on else first - 1 if known else max(first, hit)
    run = demo.start(only=None if goes_on else "none" if known else stages[last].command)
    code = run.wait()
    have_ended = all(each.wait_for_stages() for each in (*earlier, run))
    faults = [] if have_ended else ["a process of a stage does not end"]
    if shows_traceback(run):
        faults.append(f"a traceback: {run.tail()}")
    expected = [stage.command for stage in stages[first : last + (1 if goes_on else 2)]]
    began = [command for _, command in run.began]
    as_expected = began == expected or (outlived and began == expected[1:])
    if not as_expected or bool(code) == goes_on:
        again = [command for command in began if done[find_stage(stages, command)]]
        said = f"finished stages began again: {again}; " if again else ""
        return [*faults, f"{said}the plain command ended with {code} after {began}: {run.tail()}"]
    if goes_on:
        faults += differences(results(demo.folder), final)
    # make writes what the next stage needs to know of its inputs, although the stage is refused
    records = {name: one for name, one in state_of(stages[first].before).items() if RECORD.fullmatch(name)}
    expected_state = found | records if known and not goes_on else state_of(stages[last].after)
    faults += differences(state(demo.folder), expected_state)
    if not faults:
        report.proven.add(digest(found))
    return faults


@cache
def state_of(copy: Path) -> dict[str, str]:
    return state(copy)


def digest(found: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    names = sorted(found.keys() | expected.keys())
    return [f"{name} is not that of the undisturbed run" + ("" if name in expected else ", which has none")
            for name in names if found.get(name) != expected.get(name)]  # fmt: skip


def find_stage(stages: list[Stage], command: str) -> int:
    return next(number for number, stage in enumerate(stages) if stage.command == command)


def name_of(command: str) -> str:
    found = STAGE.search(command)
    return found[1] if found else command


def torture(kills: int, jobs: int, tell: Say, only: Collection[int] = (), keep: Path | None = None) -> Report:
    """All cases, or those numbered in `only`; `keep` is a folder for copies of faulty ones."""
    report, free = Report(), SimpleQueue[Demo]()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        archive = write_archive(folder / "archive")
        stages, final = measure(Demo(folder / "undisturbed", archive), folder / "copies")
        total = sum(stage.seconds for stage in stages)
        tell(f"undisturbed: {len(stages)} stages in {total:.0f} processor seconds, {len(final)} results")
        cases = [*plan(kills, len(stages)), *plan_others(len(stages) if kills >= len(stages) else 1)]
        for job in range(jobs):
            free.put(Demo(folder / f"case_{job}", archive))

        def do(number: int, case: Case) -> None:
            demo = free.get()
            faults = try_case(case, demo, stages, final, report)
            tell(
                f"{number} of {len(cases)}: {case.name}, {case.moment} of {name_of(stages[case.stage].command)}"
            )
            tell("".join(f"  FAULT {fault}\n" for fault in faults).rstrip())
            if keep and faults:
                shutil.copytree(demo.place, keep / str(number), dirs_exist_ok=True)
            free.put(demo)

        with ThreadPoolExecutor(jobs) as pool:
            chosen = [(number, case) for number, case in enumerate(cases, 1) if number in only or not only]
            for done in [pool.submit(do, number, case) for number, case in chosen]:
                done.result()
    return report


def say(line: str) -> None:
    if line:
        print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="runs that are stopped (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="cases at once (default: %(default)s)")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of cases, to try these again")
    parser.add_argument("--keep", type=Path, help="folder for copies of what cases with faults left")
    arguments = parser.parse_args()
    started = time.monotonic()
    report = torture(arguments.kills, arguments.jobs, say, arguments.only or (), arguments.keep)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print("".join(f"{fault}\n" for fault in report.faults), end="")
    print(", ".join(f"{count} x {name}" for name, count in sorted(report.done.items())))
    print(
        f"{report.done.total()} cases, {report.whole} of them to the end of the demo, "
        f"{report.known} in a known state, {len(report.faults)} faults; "
        f"{(time.monotonic() - started) / 60:.0f} minutes, "
        f"{(used.ru_utime + used.ru_stime) / 60:.0f} of a processor"
    )
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
