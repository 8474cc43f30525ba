"""Time and memory of the stages by number of images: their scripts on generated images.

The images are 64 x 64 pixels and the network is tiny, so that the largest set takes minutes. So the
seconds for an image are not those of the competition; how they grow is the same. Each script runs
in a fork of this process, which has torch loaded: its import would hide what few images take.
"""

import math
import os
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import matplotlib.pyplot as plt
import numpy as np

from nuclei.io.files import atomic_path, write_text
from nuclei.reporting.plots import STYLE
from nuclei.synthetic.images import make_image

ROOT = Path(__file__).parents[1]
COUNTS = (64, 664, 1660, 6640)
LOADED = (
    "torch",
    "lightning_fabric",
    "albumentations",
    "pandas",
    "nuclei.training.loop",
    "nuclei.evaluation.tuning",
)
"""Modules that the scripts load."""
SIDE, BATCH, TESTS = 64, 8, 4
CONFIG = """[model]
width = 4
depth = 2

[augmentation]
preset = "none"

[training]
steps = {steps}
steps_per_epoch = {steps}
batch_size = {batch}
crop = {side}
validation_images = 4

[prediction]
flips = 1
"""


class Used(NamedTuple):
    """Processor seconds of a stage with its children, and the peak MiB of its processes."""

    seconds: float
    mib: float


def growth(folder: Path, counts: tuple[int, ...] = COUNTS) -> list[dict[str, Any]]:
    """A row a stage: lists of images, seconds and MiB, and the powers with which these grow."""
    for name in LOADED:
        import_module(name)
    return make_rows(counts, [dict(run_stages(folder / str(count), count)) for count in counts])


def make_rows(counts: Sequence[int], used: Sequence[Mapping[str, Used]]) -> list[dict[str, Any]]:
    """The rows of the stages from what they used at each number of images."""
    rows = []
    for stage in used[0]:
        seconds, mib = ([getattr(each[stage], name) for each in used] for name in Used._fields)
        # what few images take is the start, which is the same for all
        beyond = [now - seconds[0] for now in seconds[1:]]
        ratio = math.log(counts[-1] / counts[-2])
        power = math.log(beyond[-1] / beyond[-2]) / ratio if min(beyond) > 0 else 0.0
        rows.append({"name": stage, "images": list(counts), "seconds": seconds, "mib": mib, "power": power})
    return rows


def run_stages(folder: Path, count: int) -> Iterator[tuple[str, Used]]:
    data, runs = folder / "data", folder / "runs"
    write_archive(data / "raw", count)
    processed, splits = ["--processed", data / "processed"], ["--splits", data / "splits.csv"]
    yield "prepare", call("prepare", "--raw", data / "raw", "--out", data / "processed", "--workers", 1)
    folds = ["--index", data / "processed/index.csv", "--out", data / "splits.csv", "--folds", 2]
    yield "splits into folds", call("make_folds", *folds)
    config = folder / "configs/tiny.toml"
    write_text(config, CONFIG.format(steps=max(1, count // 2 // BATCH), batch=BATCH, side=SIDE))
    trained, predicted = [], []
    for fold in range(2):
        out = runs / f"tiny/fold_{fold}"
        train = ["--config", config, *processed, *splits, "--fold", fold, "--out", out, "--threads", 1]
        trained.append(call("train", *train, "--device", "cpu"))
        predict = ["--checkpoint", out / "model.pt", *processed, *splits, "--oof", out / "oof.npz"]
        predicted.append(call("predict", *predict, "--device", "cpu", "--threads", 1))
    yield "train, an epoch of half of the images", trained[0]
    yield "predict the other half", predicted[0]
    maps = [runs / f"tiny/fold_{fold}/oof.npz" for fold in range(2)]
    index = ["--index", data / "processed/index.csv", "--subset", "train"]
    yield "ensemble", call("ensemble", "--inputs", *maps, "--out", runs / "tiny/oof.npz", *index)
    tune = ["--maps", runs / "tiny/oof.npz", *processed, *splits, "--out", runs / "tiny/cv.json"]
    yield "tune", call("tune", *tune, "--workers", 1)
    report = [
        "--runs",
        runs,
        "--submissions",
        folder / "submissions",
        *processed,
        "--out",
        folder / "report.html",
    ]
    yield "report", call("report", *report)


def write_archive(raw: Path, count: int) -> None:
    """Generated images in the competition's layout, and a few test images."""
    for subset, images in (("stage1_train", count), ("stage1_test", TESTS)):
        for number in range(images):
            image, label_map = make_image(
                "small_fluorescence", 2 * number + (subset == "stage1_test"), SIDE, SIDE
            )
            name = sha256(f"{subset} {number}".encode()).hexdigest()
            folder = raw / subset / name
            (folder / "images").mkdir(parents=True)
            cv2.imwrite(str(folder / f"images/{name}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGRA))
            if subset == "stage1_train":
                (folder / "masks").mkdir()
                for label in range(1, int(label_map.max()) + 1):
                    mask = np.where(label_map == label, 255, 0).astype(np.uint8)
                    digest = sha256(f"{name} {label}".encode()).hexdigest()
                    cv2.imwrite(str(folder / f"masks/{digest}.png"), mask)


def call(script: str, *arguments: Any) -> Used:
    """Runs a script in a forked process.

    Raises:
        ValueError: it failed.
    """
    process = get_context("fork").Process(target=_run, args=(script, list(map(str, arguments))))
    process.start()
    assert process.pid is not None
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise ValueError(f"{script}.py ended with status {os.waitstatus_to_exitcode(status)}")
    seconds = used.ru_utime + used.ru_stime
    print(f"{script}: {seconds:.1f} s, {used.ru_maxrss / 1024:.0f} MiB", flush=True)
    return Used(seconds, used.ru_maxrss / 1024)


def _run(script: str, arguments: list[str]) -> None:
    sys.argv = [f"{script}.py", *arguments]
    runpy.run_path(str(ROOT / f"scripts/{script}.py"), run_name="__main__")


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """Plots seconds and MiB over the number of images, log-log, with a line of linear growth."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
        for panel, key, unit in zip(
            panels, ("seconds", "mib"), ("processor seconds", "MiB at most"), strict=True
        ):
            for row in rows:
                panel.loglog(row["images"], row[key], marker="o", label=row["name"])
            panel.set_xlabel("images of 64 x 64 pixels")
            panel.set_ylabel(unit)
        images = np.array(rows[0]["images"], float)
        panels[0].loglog(
            images, images / images[-1] * 1.6 * max(row["seconds"][-1] for row in rows), "k:", label="linear"
        )
        panels[1].set_ylim(100, 10_000)
        entries = panels[0].get_legend_handles_labels()
        figure.legend(*entries, loc="outside lower center", ncols=4, fontsize=8)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        plt.close(figure)
