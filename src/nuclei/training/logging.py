"""Monitoring of a training: log.csv, TensorBoard events, progress and peak memory."""

import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from nuclei.arrays import UInt8Array
from nuclei.config import Config
from nuclei.data.splits import Fold
from nuclei.io.files import write_text
from nuclei.progress import Progress, name_job
from nuclei.training.fabric import Fabric

CARDS, OTHERS = {"loss": "learning", "validation_score": "learning"}, "speed"
"""Sections of TensorBoard, which sorts them by name: learning first, images (`validation`) last."""
LogRows = list[dict[str, float]]
"""Results of `train_epoch` and `validate`, one row per epoch."""


def open_events(fabric: Fabric, folder: Path, step: int) -> AbstractContextManager[SummaryWriter | None]:
    """TensorBoard writer from a step on; None in every process but the first."""
    return _name_errors(folder, step) if fabric.is_global_zero else nullcontext()


@contextmanager
def _name_errors(folder: Path, step: int) -> Iterator[SummaryWriter]:
    """A writer whose errors of the system name its folder.

    Its thread would print a traceback if the disk is full; the writer raises that error here.
    """
    before = threading.excepthook
    threading.excepthook = lambda told: None if isinstance(told.exc_value, OSError) else before(told)
    try:
        with SummaryWriter(str(folder), purge_step=step) as writer:
            yield writer
    except OSError as error:
        if error.filename is None:
            error.filename = str(folder)
        raise
    finally:
        threading.excepthook = before


def open_progress(fabric: Fabric, config: Config, fold: Fold, done: int) -> Progress:
    """Progress over all steps of the fold, with the time left; shown by the first process only."""
    number = fold.number if fold.validation else "all"
    job = name_job("train", config.name, number)
    return Progress(job, "steps", config.training.steps, done, shown=fabric.is_global_zero)


def describe_progress(rows: LogRows, loss: float) -> str:
    """The loss of the last steps and, once there is one, the latest validation score."""
    scores = [row["validation_score"] for row in rows if "validation_score" in row]
    return f"loss {loss:.4f}" + (f", score {scores[-1]:.4f}" if scores else "")


def draw_pictures(events: SummaryWriter, pictures: dict[str, UInt8Array], step: int) -> None:
    """Shows validation pictures (H, W, 3) uint8, by image id, in TensorBoard."""
    for image_id, picture in pictures.items():
        events.add_image(f"validation/{image_id[:12]}", picture, step, dataformats="HWC")


def record_epoch(events: SummaryWriter, folder: Path, rows: LogRows) -> None:
    """Writes the last row to TensorBoard, and all of them to `log.csv`."""
    row = rows[-1]
    for name, value in row.items():
        if name not in ("epoch", "step"):
            events.add_scalar(f"{CARDS.get(name, OTHERS)}/{name}", value, int(row["step"]))
    events.flush()
    columns = [
        "epoch",
        "step",
        "loss",
        "learning_rate",
        "images_per_second",
        "validation_score",
        "minutes",
        "peak_mib",
    ]
    lines = [",".join(f"{row[name]:.6g}" if name in row else "" for name in columns) for row in rows]
    write_text(folder / "log.csv", "\n".join([",".join(columns), *lines]) + "\n")


def peak_memory() -> int:
    """Peak memory in MiB: of the GPU where one is used, else of this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return round(torch.cuda.max_memory_allocated() / 2**20)
    unit = 1 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)
