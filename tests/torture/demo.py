"""A shrunken demo: the whole pipeline on small generated images, in a folder of its own."""

import os
import re
import resource
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
RESULTS = ("data/**/*", "runs/*/fold_*/model.pt", "runs/**/*.npz", "runs/*/cv.json", "submissions/*.csv")
"""Files that are the same after every run; logs and the leaderboard hold times."""
STAGE = re.compile(r"scripts/(\w+)\.py")


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKEOVERRIDES")}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def write_archive(folder: Path) -> Path:
    command = [
        sys.executable,
        str(ROOT / "scripts/generate.py"),
        "--out",
        str(folder),
        "--train",
        "8",
        "--test",
        "2",
    ]
    subprocess.run(
        command, check=True, capture_output=True, env=environment() | {"PYTHONPATH": str(ROOT / "src")}
    )
    return folder


@dataclass
class Run:
    """A make that was started: its stages in the order in which they began."""

    process: subprocess.Popen[str]
    log: Path
    folder: Path
    began: list[tuple[float, str]] = field(default_factory=list)
    """Time and command of every stage, without the folder's name: commands of two folders are equal."""

    def poll(self) -> bool:
        """Notes stages that have begun; whether make still runs."""
        ended = self.process.poll() is not None
        text = self.log.read_text(errors="replace").replace("\\\n", " ").replace(str(self.folder), ".")
        lines = [" ".join(line.split()) for line in text.split("\n")[: None if ended else -1]]
        stages = [line for line in lines if STAGE.search(line) and "--" in line and "Error" not in line]
        self.began += [(time.monotonic(), line) for line in stages[len(self.began) :]]
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

    def signal_group(self, number: int) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


class Demo:
    """The pipeline of one network and two folds, from the archive to the leaderboard."""

    def __init__(self, folder: Path, archive: Path) -> None:
        self.folder, self.archive, self.runs = folder, archive, 0
        (folder / "configs").mkdir(parents=True)
        text = TINY_CONFIG.format(model="", scheme="energy", steps=6, flips=1)
        (folder / "configs/first.toml").write_text(text)

    def start(self, *flags: str, largest_file: int | None = None) -> Run:
        """The plain command, with flags of make; `largest_file` in bytes stands for a full disk."""
        settings = {name: self.folder / name.lower() for name in ("DATA", "RUNS", "SUBMISSIONS", "CONFIGS")}
        settings |= {"SOURCE": self.archive, "MEMBERS": "first", "SPLIT_INTO": 2, "WORKERS": 0, "DEVICE": "cpu"}
        settings |= {"PYTHON": sys.executable, "V": 1}  # the commands are read from what make prints
        command = ["make", "--no-print-directory", *flags, "-C", str(ROOT), "leaderboard"]
        command += [f"{name}={value}" for name, value in settings.items()]
        self.runs += 1
        log = self.folder / f"log_{self.runs}.txt"
        with open(log, "w") as out:
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                env=environment(),
                preexec_fn=prepare(largest_file),
            )
        return Run(process, log, self.folder)

    def files(self) -> dict[str, Path]:
        """Every result that is there, by its path in the folder."""
        paths = {path for pattern in RESULTS for path in self.folder.glob(pattern) if path.is_file()}
        kept = [path for path in paths if not path.name.startswith(".") and path.name != "leaderboard.csv"]
        return {str(path.relative_to(self.folder)): path for path in sorted(kept)}

    def digests(self) -> dict[str, str]:
        """sha256 of every result; the manifest names the archive's place, which is the same for all."""
        return {name: sha256(path) for name, path in self.files().items()}


def prepare(largest: int | None) -> Callable[[], None]:
    """What a new process does first: Ctrl-C counts, also in a background job; files have a limit."""

    def before_exec() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    return before_exec


def children(process: int) -> list[int]:
    """Processes that another one started, as Linux lists them."""
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []
