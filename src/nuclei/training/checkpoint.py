"""What a training leaves on disk: the state that it goes on from, and the weights with all that prediction needs."""

import hashlib
import json
import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nuclei.arrays import LabelMap
from nuclei.config import Config
from nuclei.data.splits import Fold
from nuclei.io.files import atomic_path

log = logging.getLogger(__name__)


@dataclass
class State:
    """Everything that training changes."""

    model: nn.Module
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    epoch: int
    rows: list[dict[str, float]]

    def save(self, path: Path, fingerprint: str) -> None:
        content = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "epoch": self.epoch,
            "rows": self.rows,
            "fingerprint": fingerprint,
        }
        with atomic_path(path) as temporary:
            torch.save(content, temporary)

    def load(self, content: dict[str, Any]) -> None:
        self.model.load_state_dict(content["model"])
        if self.average:
            self.average.load_state_dict(content["average"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        self.epoch, self.rows = content["epoch"], content["rows"]


def average_weights(model: nn.Module, decay: float) -> AveragedModel | None:
    """The exponential average of a network's weights and buffers; None where it does not decay."""
    if not decay:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def resume(state: State, folder: Path, fingerprint: str) -> None:
    """Loads `last.pt` into the state where an interrupted run of the same config and images left one."""
    last, best = folder / "last.pt", folder / "best.pt"
    if not last.is_file():
        return
    if best.is_file() and best.stat().st_mtime >= last.stat().st_mtime:
        log.info("%s is left from a run that was finished: training anew", last)
        return
    content = torch.load(last, map_location="cpu", weights_only=True)
    if content["fingerprint"] != fingerprint:
        log.info("%s was made with another config or other images: training anew", last)
        return
    state.load(content)
    log.info("going on from %s after epoch %d", last, state.epoch)


def name_hardware(fabric: Fabric) -> str:
    """What the run was trained on: the number of devices and their name."""
    if fabric.device.type == "cuda":
        return f"{fabric.world_size} x {torch.cuda.get_device_name(fabric.device)}"
    return f"{fabric.world_size * torch.get_num_threads()} {fabric.device.type} threads, {platform.machine()}"


def fingerprint_run(config: Config, fold: Fold, labelled: Mapping[str, LabelMap]) -> str:
    content: list[Any] = [config.model_dump(mode="json"), fold.number, fold.training, fold.validation]
    content += [[image_id, hashlib.sha256(labels.tobytes()).hexdigest()] for image_id, labels in labelled.items()]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
