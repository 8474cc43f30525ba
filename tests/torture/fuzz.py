"""A seeded fuzzer: run-length cases against a plain reference, and mutated files of every kind.

A case passes where the file is read, or refused as a `UserError` or an error of the system that
names it, within 10 seconds and 1 GB. `python -m torture.fuzz --cases 10000` is a part of
`make torture`.
"""

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torture.kinds import Kind, RefusedError, make_kinds
from torture.mutations import mutate

from nuclei.errors import UserError
from nuclei.submission import rle

SECONDS = 10
MEMORY = 2**30
RUN_LENGTH_CASES = 10
"""Run-length cases for each mutated file."""
BATCH = 200
"""Files that one process reads: one that is killed names its batch."""


class Hang(BaseException):
    """A case that took too long; no handler of `Exception` catches it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="mutated files (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started, found = time.monotonic(), []
    lengths = arguments.cases * RUN_LENGTH_CASES
    found += in_process(lambda: check_run_lengths(lengths, arguments.seed))
    with tempfile.TemporaryDirectory() as folder:
        kinds = make_kinds(Path(folder))
        found += read_good_files(kinds, Path(folder))
        for first in range(0, arguments.cases, BATCH):
            cases = range(first, min(first + BATCH, arguments.cases))
            found += in_process(lambda cases=cases: check_files(kinds, cases, arguments.seed, Path(folder)))
    faults = [line for line in found if not line.startswith("= ")]
    outcomes: Counter[str] = Counter()
    for line in found:
        if line.startswith("= "):
            outcomes.update(json.loads(line[2:]))
    print("".join(f"{fault}\n" for fault in faults[:40]), end="")
    minutes = (time.monotonic() - started) / 60
    print(
        f"{lengths} run-length cases, {arguments.cases} mutated files, seed {arguments.seed}: "
        f"{len(faults)} faults, "
    )
    print(", ".join(f"{count} {name}" for name, count in sorted(outcomes.items())) + f"; {minutes:.1f} minutes")
    return 1 if faults else 0


# --- run lengths --------------------------------------------------------------------------------


def check_run_lengths(count: int, seed: int) -> list[str]:
    """Faults of `rle` in random label maps and random texts."""
    faults = []
    for case in range(count):
        chance = random.Random(seed * 1_000_003 + case)
        try:
            with limit():
                (check_label_map if case % 2 else check_text)(chance)
        except BaseException as error:
            faults.append(describe("run lengths", case, error))
    return faults


def check_label_map(chance: random.Random) -> None:
    """Encoded and decoded by a plain loop, a label map is the same."""
    generator = np.random.default_rng(chance.getrandbits(32))
    height, width = chance.randint(1, 12), chance.randint(1, 12)
    kind = chance.choice((np.uint8, np.int32, np.int64, np.uint64))
    largest = min(chance.choice((1, 3, 200, 2**63, 2**64)), int(np.iinfo(kind).max))
    names = np.array([0, *(chance.randint(1, largest) for _ in range(3))], dtype=kind)
    labels = names[generator.integers(0, 4, (height, width))]
    rows = rle.encode_label_map(labels)
    expected = [runs_of(labels == name) for name in sorted({int(name) for name in np.unique(labels)} - {0})]
    assert rows == expected, f"{labels.tolist()} {labels.dtype}: {rows}, expected {expected}"
    for row, name in zip(rows, sorted({int(name) for name in np.unique(labels)} - {0}), strict=True):
        assert (rle.decode(row, height, width) == (labels == kind(name))).all()


def runs_of(mask: np.ndarray) -> str:
    """The runs of a mask, pixel by pixel."""
    pixels, runs, length = mask.T.ravel().tolist(), [], 0
    for place, inside in enumerate([*pixels, False]):
        if inside:
            length += 1
        elif length:
            runs += [place - length + 1, length]
            length = 0
    return " ".join(map(str, runs))


def check_text(chance: random.Random) -> None:
    """A text is refused, or decoded to the pixels that it says."""
    numbers = sorted(chance.randint(0, 130) for _ in range(chance.randint(0, 6)))
    text = " ".join(map(str, numbers))
    if chance.random() < 0.5:
        text = mutate(text.encode(), chance).decode(errors="replace")
    try:
        mask = rle.decode(text, 12, 10)
    except UserError:
        return
    pixels = set()
    words = [int(word.lstrip("0") or "0") for word in text.split()]
    for start, length in zip(words[::2], words[1::2], strict=True):
        pixels |= set(range(start - 1, start - 1 + length))
    assert set(np.flatnonzero(mask.T.ravel()).tolist()) == pixels, text[:200]


# --- files --------------------------------------------------------------------------------------


def read_good_files(kinds: dict[str, Kind], folder: Path) -> list[str]:
    """Faults of the unchanged files; also imports what every process of a batch would import."""
    faults = []
    for kind, (content, name, read) in kinds.items():
        path = folder / kind / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        try:
            read(path)
        except Exception as error:
            if kind != "card of an ensemble":  # its members are not there
                faults.append(describe(kind, -1, error))
    return faults


def check_files(kinds: dict[str, Kind], cases: range, seed: int, folder: Path) -> list[str]:
    """Faults, and a line that counts what was read and what was refused."""
    faults, outcomes = [], Counter()
    for case in cases:
        chance = random.Random(f"{seed} {case}")
        kind = list(kinds)[case % len(kinds)]
        content, name, read = kinds[kind]
        path = folder / str(os.getpid()) / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(spoil(kind, content, chance))
        before = time.monotonic()
        try:
            with limit():
                read(path)
            outcomes["read"] += 1
        except (UserError, RefusedError, OSError) as error:
            outcomes["refused"] += 1
            if len(str(error)) > 6000:
                faults.append(f"{kind}, case {case}: a message of {len(str(error))} characters")
        except BaseException as error:
            faults.append(describe(kind, case, error))
        outcomes["over 1 s"] += time.monotonic() - before > 1
    return [*faults, "= " + json.dumps(outcomes)]


def spoil(kind: str, content: bytes, chance: random.Random) -> bytes:
    """A mutation; in large binary files half of them in the header, which is read first."""
    if kind not in ("weights", "checkpoint") or chance.random() < 0.3:
        return mutate(content, chance)
    start = content[: chance.choice((64, 2000, 6000))]
    if kind == "weights" and chance.random() < 0.5:  # a header whose length is right
        length = int.from_bytes(content[:8], "little")
        header = mutate(content[8 : 8 + length], chance)
        return len(header).to_bytes(8, "little") + header + content[8 + length :]
    return mutate(start, chance) + content[len(start) :]


# --- limits -------------------------------------------------------------------------------------


class limit:  # noqa: N801  # reads as a function
    """Raises `Hang` in a block that takes longer than SECONDS of its own processor time."""

    def __enter__(self) -> None:
        signal.signal(signal.SIGPROF, raise_hang)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)


def raise_hang(number: int, frame: FrameType | None) -> None:
    raise Hang(f"not done after {SECONDS} s")


def in_process(work: Callable[[], list[str]]) -> list[str]:
    """The lines of `work`, in a process that may take MEMORY more than this one has."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY,) * 2)
        with os.fdopen(writing, "w") as out:
            out.write("\n".join(line.replace("\n", " | ") for line in work()))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        lines = [line for line in answers.read().split("\n") if line]
    status = os.waitpid(process, 0)[1]
    return [*lines, f"a process of the fuzzer ended with {status}"] if status else lines


def describe(kind: str, case: int, error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    return f"{kind}, case {case}: {type(error).__name__}: {str(error)[:200]} ({places})"


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
