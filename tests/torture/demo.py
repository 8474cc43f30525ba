"""A shrunken demo: the whole pipeline on small generated images, in a folder of its own."""

import csv
import hashlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tiny_config import TINY_CONFIG

from nuclei.io.files import sha256

ROOT = Path(__file__).parents[2]
GOALS = ("leaderboard", "report")
RESULTS = (
    "data/**/*", "runs/*/fold_*/model.pt", "runs/**/*.npz", "runs/*/*.json", "submissions/*.csv",
    "submissions/README.md",
)  # fmt: skip
"""Files that have the same bytes after every run."""
TIMED = re.compile(r"submissions/(leaderboard\.csv|scores/.*)|.*/events\.out\..*|report.*")
"""Files that hold times or commits, of which only the presence counts."""
SCRATCH = re.compile(r"\.tfevents\.|/raw/\.incoming/|/\.lock$")
"""Files that may be left: logs of a training that was stopped, the note of a lock whose holder was
killed, which the next one writes over, and what a download did not clear away."""
STAGE = re.compile(r"scripts/(\w+)\.py")
REFUSED = 99
"""Exit code of a stage that was not to begin."""
OBSERVER = """#!/bin/sh
# The PYTHON of a torture: notes each stage that begins, with its process, and becomes Python.
# It may copy the folder as it is then, or refuse to begin any other stage than one.
case "$1" in scripts/*) ;; *) exec "$TORTURE_PYTHON" "$@";; esac
printf '%s %s\\n' "$$" "$*" >> "$TORTURE_BEGAN"
[ -z "$TORTURE_COPIES" ] || cp -a "$TORTURE_FOLDER" "$TORTURE_COPIES/$(grep -c . "$TORTURE_BEGAN")" || exit 1
[ -z "$TORTURE_ONLY" ] || [ "$*" = "$TORTURE_ONLY" ] || exit 99
exec "$TORTURE_PYTHON" "$@"
"""


def environment() -> dict[str, str]:
    left_out = ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def write_archive(folder: Path) -> Path:
    script = [sys.executable, str(ROOT / "scripts/generate.py")]
    command = [*script, "--out", str(folder), "--train", "8", "--test", "2"]
    subprocess.run(
        command, check=True, capture_output=True, env=environment() | {"PYTHONPATH": str(ROOT / "src")}
    )
    return folder


@dataclass
class Run:
    """A make that was started: the stages that it began, with their processes."""

    process: subprocess.Popen[str]
    log: Path
    notes: Path
    folder: Path
    began: list[tuple[int, str]] = field(default_factory=list)
    """Process and command of every stage, without the folder's name, so that folders compare."""

    def poll(self) -> bool:
        """Notes stages that have begun; whether make still runs."""
        ended = self.process.poll() is not None
        text = self.notes.read_text() if self.notes.exists() else ""
        lines = [
            line.partition(" ") for line in text.replace(f"{self.folder}/", "./").splitlines(keepends=True)
        ]
        whole = [(int(process), stage.strip()) for process, _, stage in lines if stage.endswith("\n")]
        self.began += whole[len(self.began) :]
        return not ended

    def wait(self, seconds: float = 1800) -> int:
        """Exit code of make."""
        until = time.monotonic() + seconds
        while self.poll():
            if time.monotonic() > until:
                self.signal_group(signal.SIGKILL)
                raise AssertionError(f"make did not end within {seconds:.0f} s: {self.tail()}")
            time.sleep(0.02)
        return self.process.returncode

    def wait_for_stages(self, seconds: float = 600) -> bool:
        """Waits until no process of a stage or make is left; false if one does not end."""
        until = time.monotonic() + seconds
        while any(is_running(process) for process, _ in self.began):
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def signal_group(self, number: int) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def says(self) -> str:
        return self.log.read_text(errors="replace")

    def tail(self) -> str:
        return self.says()[-2000:]


class Demo:
    """The pipeline of one network and two folds, from the archive to the report.

    The folder holds what make makes and `configs`; what the runs said is in `logs`, beside it.
    """

    def __init__(self, place: Path, archive: Path) -> None:
        self.place, self.folder, self.logs = place, place / "demo", place / "logs"
        self.archive, self.runs = archive, 0
        self.observer = place / "python"

    def fill(self, source: Path | None = None) -> None:
        """Begins again, from nothing or with a copy of another demo's folder, times included."""
        self.runs = 0
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)
        self.observer.write_text(OBSERVER)
        self.observer.chmod(0o755)
        if source is not None:
            subprocess.run(["cp", "-aT", str(source), str(self.folder)], check=True)
            return
        (self.folder / "configs").mkdir(parents=True)
        text = TINY_CONFIG.format(model="", scheme="energy", steps=6, flips=1)
        (self.folder / "configs/first.toml").write_text(text)

    def start(
        self,
        *flags: str,
        only: str | None = None,
        copies: Path | None = None,
        largest_file: int | None = None,
    ) -> Run:
        """The plain command, with flags of make.

        `only` is the one stage that may begin, `copies` a folder for copies of the demo's folder as
        each stage begins; no file may grow beyond `largest_file` bytes.
        """
        settings = {name: self.folder / name.lower() for name in ("DATA", "RUNS", "SUBMISSIONS", "CONFIGS")}
        settings |= {"SOURCE": self.archive, "MEMBERS": "first", "SPLIT_INTO": 2, "WORKERS": 0, "DEVICE": "cpu"}
        settings |= {"PYTHON": self.observer, "REPORT": self.folder / "report.html"}
        command = ["make", "--no-print-directory", *flags, "-C", str(ROOT), *GOALS]
        command += [f"{name}={value}" for name, value in settings.items()]
        self.runs += 1
        log, notes = self.logs / f"log_{self.runs}.txt", self.logs / f"began_{self.runs}.txt"
        told = {"TORTURE_PYTHON": sys.executable, "TORTURE_BEGAN": notes, "TORTURE_FOLDER": self.folder}
        told |= {"TORTURE_COPIES": copies or "", "TORTURE_ONLY": (only or "").replace("./", f"{self.folder}/")}
        with open(log, "w") as out:
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                env=environment() | {name: str(value) for name, value in told.items()},
                preexec_fn=prepare(largest_file),
            )
        return Run(process, log, notes, self.folder)


def results(folder: Path) -> dict[str, str]:
    """SHA-256 of every result that is there, by its path in the folder."""
    paths = {path for pattern in RESULTS for path in folder.glob(pattern) if path.is_file()}
    names = {str(path.relative_to(folder)): path for path in sorted(paths)}
    return {
        name: sha256(path) for name, path in names.items() if not is_hidden(name) and not TIMED.fullmatch(name)
    }


def is_hidden(name: str) -> bool:
    """Whether a file or a folder on the way to it is hidden, as temporary ones are."""
    return any(part.startswith(".") for part in Path(name).parts)


def state(folder: Path) -> dict[str, str]:
    """What make and the stages find in a folder: every file, temporary or not, with its digest.

    A log of a training counts without its times. Of files that hold times the presence counts.
    """
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or SCRATCH.search(name):
            continue
        digests[name] = (
            "" if TIMED.fullmatch(name) else log_digest(path) if path.name == "log.csv" else sha256(path)
        )
    return digests


def log_digest(path: Path) -> str:
    """Digest of the columns that are the same after every run."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ("epoch", "step", "loss", "learning_rate", "validation_score")
    return hashlib.sha256(repr([[row[column] for column in columns] for row in rows]).encode()).hexdigest()


def prepare(largest: int | None) -> Callable[[], None]:
    """First in a new process: Ctrl-C counts, also in a background job; files have a limit."""

    def before_exec() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    return before_exec


# --- processes, as Linux lists them ---------------------------------------------------------------


def descendants(process: int) -> list[int]:
    """Processes that another one started, and theirs."""
    try:
        words = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [number for word in words for number in (int(word), *descendants(int(word)))]


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processor_seconds(process: int) -> float:
    """Of a process and all that it started."""
    ticks = 0
    for number in (process, *descendants(process)):
        try:
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15] if number == process else fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")
