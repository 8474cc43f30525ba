"""Runs the benchmarks and writes benchmarks/RESULTS.md."""

import argparse
import datetime
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import cv2
import rows
import torch
import trials
from data import Data, open_data
from harness import Row

from nuclei.artifacts import write_text
from nuclei.inference import choose_device

HERE = Path(__file__).parent
ROOT = HERE.parent
SECTIONS = ("metric", "run_lengths", "postprocessing", "opening", "crops", "training", "prediction", "tuning")
HEAD = """# Speed, held against how it is usually done

Written by `make bench`: ours and the peer take turns, and the ratio (peer / ours, above 1 where ours is faster) is
taken within each pair; its median stands first, the least and the most in brackets. Both answers are compared before
anything is timed, and the row says in what sense they are the same. Memory is what a process grew by at most.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with raw/, processed/ and splits.csv")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md")
    parser.add_argument("--images", type=int, default=60, help="training images in the sample (default 60)")
    parser.add_argument("--device", default="cpu", help="of training and prediction: cpu, cuda or auto")
    parser.add_argument(
        "--rows",
        nargs="*",
        default=[*SECTIONS, "start_up", "trials"],
        choices=[*SECTIONS, "start_up", "trials"],
        help="which sections to run",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    device, data = choose_device(arguments.device), open_data(arguments.data, arguments.images)
    text = [HEAD, *_machine(data, device), ""]
    measured: list[Row] = []
    for name in arguments.rows:
        if name in SECTIONS:
            measured += _run(name, data, device)
            write_text(arguments.out, "\n".join([*text, *_table(measured)]) + "\n")
    text += _table(measured) if measured else []
    if "start_up" in arguments.rows:
        text += ["", "| start, the shortest of three | processor's time | bar |", "|---|---|---|", *rows.start_up(ROOT)]
        write_text(arguments.out, "\n".join(text) + "\n")
    if "trials" in arguments.rows:
        text += ["", trials.HEAD, *_table(list(trials.run(data)))]
    write_text(arguments.out, "\n".join(text) + "\n")


def _run(name: str, data: Data, device: torch.device) -> Iterator[Row]:
    section: Callable[..., Iterator[Row]] = getattr(rows, name)
    if name in ("training", "prediction"):
        yield from section(data, device)
    elif name == "tuning":
        with tempfile.TemporaryDirectory() as scratch:
            yield from section(data, Path(scratch))
    else:
        yield from section(data)


def _table(measured: list[Row]) -> list[str]:
    lines = [
        "| what | against | ours | theirs | ratio | bar | MiB, ours / theirs | the same |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in measured:
        spread = f"**{row.ratio:.2f}** ({min(row.ratios):.2f} to {max(row.ratios):.2f}, {len(row.ratios)} pairs)"
        bar = "" if row.bar is None else f"{row.bar:g}: {'met' if row.ratio >= row.bar else 'missed'}"
        memory = f"{row.ours_memory:.0f} / {row.peer_memory:.0f}"
        times = f"{_time(row.ours_seconds)} {row.clock} | {_time(row.peer_seconds)} {row.clock}"
        lines.append(f"| {row.name} | {row.peer} | {times} | {spread} | {bar} | {memory} | {row.equal} |")
    return lines


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.2f} ms"


def _machine(data: Data, device: torch.device) -> list[str]:
    names = ("torch", "numpy", "opencv-python-headless", "scikit-image", "stardist", "cellpose", "pycocotools")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    load, processor = os.getloadavg()[0], torch.backends.cpu.get_cpu_capability()
    bfloat16 = "with" if rows.autocast_type("auto", torch.device("cpu")) else "without"
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return [
        f"{datetime.date.today()}, commit {commit.stdout.strip()}, {data.name}. {os.cpu_count()} cores "
        f"{platform.machine()} ({processor}, {bfloat16} bfloat16 instructions){gpu}, one thread a process, load "
        f"{load:.1f} when it began: " + ("other work" if load > 1.5 else "nothing else") + " ran beside it.",
        "Python " + sys.version.split()[0] + ", " + ", ".join(f"{name} {version(name)}" for name in names) + ".",
    ]


if __name__ == "__main__":
    main()
