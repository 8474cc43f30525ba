"""Training the UNet of width 32 at 256x256 on a GPU: images/s, fraction of peak, loader cost.

Every row is an epoch of the project's own `train_epoch` after one that warms up.
"""

import itertools
import os
import time
from collections.abc import Iterator
from typing import Any

import torch
from data import Data
from lightning_fabric import Fabric

from nuclei.arrays import CHANNELS
from nuclei.config import AugmentationConfig, Config, ModelConfig, TrainingConfig
from nuclei.data.dataset import Crops
from nuclei.devices import resolve_precision
from nuclei.models.factory import build_model
from nuclei.progress import Progress
from nuclei.training.distributed import launch
from nuclei.training.logging import peak_memory
from nuclei.training.loop import open_loader, train_epoch
from nuclei.training.losses import build_loss
from nuclei.training.optimizer import set_up
from nuclei.training.speed import count_operations, measure_peak, peak_fraction, synchronise

WIDTH, SIDE, BATCH, STEPS = 32, 256, 64, 100
ON_CPU = {"batch_size": 2, "crop": 64, "steps_per_epoch": 3}
"""What takes the place of a GPU's amounts where there is none: that the rows can be tried."""
HELD = 8
"""Batches that are kept on the device where no loader takes part."""
SECONDS_OF_CROPS = 5.0
SHARE_ON_DEVICE = 0.5
"""Bar of the training whose crops are made on the device, data preparation included."""
SHARE, TAX, TAX_OF_FEW, MANY = 0.25, 1.02, 1.10, 16
"""Bars: fraction of the peak; cost of the loader with many cores, with fewer; how many is many."""


def device(data: Data, device: torch.device) -> list[dict[str, Any]]:
    """Rows of images/s; `share` is of the measured bfloat16 peak, `ratio` of the peer, if any."""
    amounts = {"batch_size": BATCH, "crop": SIDE, "steps_per_epoch": STEPS}
    training = TrainingConfig(steps=10**6, **(amounts if device.type == "cuda" else ON_CPU))
    config = Config(name="gpu", model=ModelConfig(width=WIDTH), training=training)
    plain = config.model_copy(update={"training": training.model_copy(update={"precision": "32-true"})})
    peak = measure_peak(device)
    operations = count_operations(config)
    begun = time.perf_counter()
    crops = Crops(data.images, data.ids, config, 0)
    fabric = launch(device, 1, 1, "32-true")
    held = _hold(fabric, crops, config)
    seconds = time.perf_counter() - begun
    print(f"peak {peak / 1e12:.0f} TFLOP/s, held after {seconds:.0f} s", flush=True)
    rows = []

    def add(
        name: str, one: Config, batches: Iterator[Any], compiled: bool, layout: torch.memory_format
    ) -> float:
        speed, mib = _epoch(one, batches, device, compiled, layout)
        share = peak_fraction(operations, speed, peak)
        rows.append({"name": name, "speed": speed, "share": share, "mib": mib, "operations": operations})
        print(f"{name}: {speed:.0f} images/s, {share:.1%}", flush=True)
        return speed

    last, contiguous = torch.channels_last, torch.contiguous_format
    usual = add("the usual loop: float32, contiguous", plain, itertools.cycle(held), False, contiguous)
    add("bfloat16, channels_last", config, itertools.cycle(held), False, last)
    fastest = add("the same, compiled", config, itertools.cycle(held), True, last)
    rows[-1] |= {"ratio": fastest / usual, "against": "the usual loop", "share_bar": SHARE}
    for workers in sorted({min(4, os.cpu_count() or 1), os.cpu_count() or 1}):
        loader = iter(open_loader(fabric, crops, 0, config, workers))
        fed = add(f"compiled, crops of {workers} loader processes", config, loader, True, last)
        rows[-1] |= {
            "ratio": fastest / fed,
            "against": "data held on the device",
            "bar": TAX if workers >= MANY else TAX_OF_FEW,
        }
    placed = config.model_copy(update={"augmentation": AugmentationConfig(place="device")})
    made = iter(open_loader(fabric, Crops(data.images, data.ids, placed, 0), 0, placed, 0))
    fed = add("compiled, crops made on the device", placed, made, True, last)
    rows[-1] |= {"ratio": fastest / fed, "against": "data held on the device"}
    rows[-1]["share_bar"] = SHARE_ON_DEVICE
    return [*rows, *_time_crops(data, config, placed, fabric, operations)]


def _time_crops(
    data: Data, host: Config, placed: Config, fabric: Fabric, operations: int
) -> list[dict[str, Any]]:
    """Crops/s without a training: by one loader in this process, and in batches on the device."""
    rows: list[dict[str, Any]] = []
    configs = {"by albumentations, one core": host, "on the device, one core beside it": placed}
    for name, config in configs.items():
        batches = iter(open_loader(fabric, Crops(data.images, data.ids, config, 0), 0, config, 0))
        next(batches)
        synchronise(fabric.device)
        begun, count = time.perf_counter(), 0
        while time.perf_counter() - begun < SECONDS_OF_CROPS:
            next(batches)
            synchronise(fabric.device)
            count += config.training.batch_size
        speed = count / (time.perf_counter() - begun)
        rows.append({"name": f"crops alone, {name}", "speed": speed, "share": None, "operations": operations})
        rows[-1]["mib"] = peak_memory()
        print(f"{rows[-1]['name']}: {speed:.0f} images/s", flush=True)
    rows[-1] |= {"ratio": rows[1]["speed"] / rows[0]["speed"], "against": "albumentations"}
    return rows


def _hold(fabric: Fabric, crops: Crops, config: Config) -> list[Any]:
    loader = iter(open_loader(fabric, crops, 0, config, os.cpu_count() or 1))
    batches = []
    for _ in range(HELD):
        *tensors, ids = next(loader)
        batches.append([*map(fabric.to_device, tensors), ids])
    return batches


def _epoch(
    config: Config, batches: Iterator[Any], device: torch.device, compiled: bool, layout: torch.memory_format
) -> tuple[float, float]:
    """Images a second of the second epoch, and the most memory in MiB that it held."""
    training = config.training
    torch.manual_seed(0)
    fabric = launch(device, 1, 1, resolve_precision(training.precision, device))
    model = build_model(config.model, CHANNELS, pretrained=False)
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    wrapped, state = set_up(fabric, model, training, compiled, fused=layout is torch.channels_last)
    criterion = build_loss(config.loss, config.target)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    progress = Progress("train", "steps", shown=False)
    for _ in range(2):
        synchronise(device)
        begun = time.perf_counter()
        train_epoch(fabric, wrapped, state, batches, criterion, config, 0, progress)
        synchronise(device)
        seconds = time.perf_counter() - begun
    return training.steps_per_epoch * training.batch_size / seconds, peak_memory()
