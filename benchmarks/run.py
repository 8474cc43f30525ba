"""Runs the benchmarks and writes benchmarks/RESULTS.md; --rows renews only some sections."""

import argparse
import datetime
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import gpu
import growth
import record
import rows
import segmenting
import torch
import trials
import whole
from data import Data, open_data

from nuclei.devices import choose_device
from nuclei.provenance import code_commit

HERE = Path(__file__).parent
ROOT = HERE.parent
MODULES = {"opencv-python-headless": "cv2", "scikit-image": "skimage"}


def main() -> None:
    everything = [*record.SECTIONS, record.START_UP, *record.WHOLE, *trials.TRIALS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="with raw/, processed/, splits.csv")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    parser.add_argument("--images", type=int, default=60, help="training images (default 60)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto")
    parser.add_argument(
        "--rows",
        nargs="*",
        default=everything,
        choices=[*everything, record.DEVICE, record.GROWTH],
        help="which sections",
    )
    parser.add_argument("--maps", type=Path, help="for `search` (default: blurred annotation)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    device, data = choose_device(arguments.device), open_data(arguments.data, arguments.images)
    run = _describe(data, device)
    for name in arguments.rows:
        key = record.section_key(name, device.type)
        record.update(arguments.out, key, run, _measure(name, data, device, arguments.maps))


def _measure(name: str, data: Data, device: torch.device, maps: Path | None) -> list[dict[str, Any]]:
    if name == record.START_UP:
        return rows.start_up(ROOT, data)
    if name == record.DEVICE:
        return gpu.device(data, device)
    if name == record.GROWTH:
        with tempfile.TemporaryDirectory() as scratch:
            found = growth.growth(Path(scratch))
        growth.plot(HERE / "growth.svg", found)
        return found
    if name in record.WHOLE:
        with tempfile.TemporaryDirectory() as scratch:
            run, folder = getattr(whole, name), Path(scratch)
            return run(data, folder, maps) if name == "search" else run(data, folder)
    section = trials.TRIALS.get(name) or getattr(segmenting if name == "segment" else rows, name)
    if name in record.ON_DEVICE:
        return [record.plain(row) for row in section(data, device)]
    if name == "tuning":
        with tempfile.TemporaryDirectory() as scratch:
            return [record.plain(row) for row in section(data, Path(scratch))]
    return [record.plain(row) for row in section(data)]


def _describe(data: Data, device: torch.device) -> str:
    names = ["torch", "numpy", "opencv-python-headless", "scikit-image"]
    names += ["stardist", "cellpose", "pycocotools"]
    there = [f"{name} {version(name)}" for name in names if find_spec(MODULES.get(name, name))]
    commit = code_commit()
    load, processor = os.getloadavg()[0], torch.backends.cpu.get_cpu_capability()
    bfloat16 = "with" if rows.autocast_type("auto", torch.device("cpu")) else "without"
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return (
        f"{datetime.date.today()}, commit {commit}, {data.name}. {os.cpu_count()} cores "
        f"{platform.machine()} ({processor}, {bfloat16} bfloat16 instructions){gpu}, one thread a "
        f"process, load {load:.1f} when it began: "
        f"{'other work' if load > 1.5 else 'nothing else'} ran beside it. Python "
        f"{sys.version.split()[0]}, {', '.join(there)}."
    )


if __name__ == "__main__":
    main()
