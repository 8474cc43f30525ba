"""`last.pt`: the state that every epoch leaves on disk, and from which an interrupted training
resumes.
"""

import hashlib
import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nuclei.config import Config
from nuclei.data.dataset import Crops
from nuclei.data.external_sets import PooledImages
from nuclei.data.prepared_images import Images
from nuclei.devices import resolve_precision
from nuclei.io.files import atomic_path, sha256
from nuclei.models.checkpoint_file import RESULT, load_checkpoint, read_plain, save_synced
from nuclei.training.fabric import Fabric

log = logging.getLogger(__name__)

LAST = "last.pt"
"""File name of the state after the last finished epoch."""
UNKNOWN = "the version of the code (the file does not record its settings)"


@dataclass
class State:
    """Everything that training changes."""

    model: nn.Module
    average: AveragedModel | None
    """Exponential moving average (EMA) of the weights; None where `training.ema_decay` is 0."""
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    epoch: int
    rows: list[dict[str, float]]

    @property
    def network(self) -> nn.Module:
        """The weights that are validated and kept: the average where there is one."""
        return self.average.module if self.average else self.model

    def save(self, path: Path, settings: Mapping[str, str]) -> None:
        content = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "epoch": self.epoch,
            "rows": self.rows,
            "settings": dict(settings),
        }
        with atomic_path(path) as temporary:
            save_synced(content, temporary)

    def load(self, content: dict[str, Any]) -> None:
        self.model.load_state_dict(content["model"])
        if self.average:
            self.average.load_state_dict(content["average"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        self.epoch, self.rows = content["epoch"], content["rows"]


def average_weights(model: nn.Module, decay: float) -> AveragedModel | None:
    """The exponential moving average (EMA) of weights and buffers; None where the decay is 0."""
    if not decay:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def collect_settings(
    config: Config, device: torch.device, images: Images | PooledImages, crops: Crops, start: Path | None
) -> dict[str, str]:
    """Everything that decides the trained weights, by name: settings, fold, images, start weights.

    Two runs with equal settings train the same weights, so one can resume the other.
    """
    settings = config.weight_settings()
    settings["training.precision"] = resolve_precision(config.training.precision, device)
    settings["fold"] = str(crops.fold)
    settings["training images"] = _digest_files(images, crops)
    settings["weights of training.start"] = sha256(start) if start else ""
    return settings


def _digest_files(images: Images | PooledImages, crops: Crops) -> str:
    """SHA-256 of the ids, the files and the pseudo-labels that are trained on."""
    digest = hashlib.sha256()
    for image_id in crops.ids:
        digest.update(image_id.encode())
        for content in images.files(image_id):
            digest.update(hashlib.sha256(content).digest())
        if image_id in crops.labelled:
            digest.update(crops.labelled[image_id].tobytes())
    return digest.hexdigest()


def is_finished(folder: Path, settings: Mapping[str, str], waited: bool = False) -> bool:
    """Whether this training has written its result already.

    That is so where it was killed before it removed `last.pt`, or where another process trained the
    same while this one `waited` for the folder. Otherwise a result that is there is to be replaced.
    """
    last, result = folder / LAST, folder / RESULT
    if not result.is_file() or not (waited or last.is_file()):
        return False
    # a training that was started again after its result has a newer last.pt
    if last.is_file() and last.stat().st_mtime_ns > result.stat().st_mtime_ns:
        return False
    finished = bool(load_checkpoint(result).get("settings") == settings)
    if finished:
        log.info("%s is the result of this training already", result)
    return finished


def resume(fabric: Fabric, state: State, folder: Path, settings: Mapping[str, str]) -> None:
    """Loads `last.pt` into the state if it is of a training with the same settings.

    Otherwise a warning names what changed, and the file is renamed, so that it is not overwritten.
    """
    last = folder / LAST
    if not last.is_file():
        return
    content = _read_state(last)
    changed = _list_changes(content.get("settings"), settings)
    if not changed:
        state.load(content)
        log.info("resuming %s after epoch %d", last, state.epoch)
    fabric.barrier()  # all processes have read the file before the first one renames it
    if changed and fabric.is_global_zero:
        kept = _free_name(last)
        last.replace(kept)
        log.warning(
            "%s cannot be resumed, because these changed: %s. It is kept as %s; training starts from the beginning",
            last,
            ", ".join(changed),
            kept.name,
        )


def _read_state(path: Path) -> dict[str, Any]:
    """The content of `last.pt`; empty where it cannot be read."""
    try:
        content = read_plain(path)
    except Exception as error:  # torch raises a dozen kinds; all mean that the file cannot be used
        log.warning("%s: not a readable training state (%s)", path, " ".join(str(error).split())[:200])
        return {}
    return content if isinstance(content, dict) else {}


def _list_changes(saved: Mapping[str, str] | None, settings: Mapping[str, str]) -> list[str]:
    """What differs, as `training.seed (0 -> 1)`; long values, such as digests, are left out."""
    if saved is None:
        return [UNKNOWN]
    changes = []
    for name in sorted(saved.keys() | settings.keys()):
        before, now = saved.get(name, "absent"), settings.get(name, "absent")
        if before != now:
            short = len(before) < 64 and len(now) < 64
            changes.append(f"{name} ({before} -> {now})" if short else name)
    return changes


def _free_name(last: Path) -> Path:
    """The first of last_kept_1.pt, last_kept_2.pt ... that does not exist."""
    number = 1
    while (kept := last.with_name(f"{last.stem}_kept_{number}{last.suffix}")).exists():
        number += 1
    return kept


def name_hardware(fabric: Fabric) -> str:
    """What the run was trained on: the number of devices and their name."""
    if fabric.device.type == "cuda":
        return f"{fabric.world_size} x {torch.cuda.get_device_name(fabric.device)}"
    threads = fabric.world_size * torch.get_num_threads()
    return f"{threads} {fabric.device.type} threads, {platform.machine()}"
