"""Speed measurement: matrix product of the machine; training and prediction of an experiment."""

import os
import time
from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from nuclei.arrays import CHANNELS
from nuclei.config import Config
from nuclei.data.dataset import Crops
from nuclei.data.external_sets import PooledImages
from nuclei.data.prepared_images import Images
from nuclei.data.splits import Fold
from nuclei.devices import autocast_type
from nuclei.inference.predictor import Predictor
from nuclei.models.factory import build_model
from nuclei.progress import Progress
from nuclei.training.fabric import Fabric
from nuclei.training.logging import peak_memory
from nuclei.training.loop import open_loader, train_epoch, validate
from nuclei.training.losses import build_loss
from nuclei.training.optimizer import set_up
from nuclei.training.time_plan import Machine, Speed

PEAK_SIDE, PEAK_SIDE_CPU = 8192, 512
"""Side of the square matrices whose product is timed."""
CHUNK, CHUNK_CPU = 10, 1
"""Steps that are timed together; the first ones warm up and are left out."""
FORWARD_AND_BACKWARD = 3
"""Multiply-adds of a training step in those of its forward pass."""


def measure_machine(device: torch.device) -> Machine:
    """The device's name, free memory and peak, and the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory, name = None, device.type
    if device.type == "cuda":
        memory, name = torch.cuda.mem_get_info(device)[0] / 2**20, torch.cuda.get_device_name(device)
    return Machine(device=device.type, name=name, cores=cores, memory=memory, peak=measure_peak(device))


def measure_peak(device: torch.device) -> float:
    """Operations a second of a bfloat16 matrix product, best of five; a multiply-add is two."""
    side = PEAK_SIDE if device.type == "cuda" else PEAK_SIDE_CPU
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(8):
        synchronise(device)
        begun = time.perf_counter()
        one @ other
        synchronise(device)
        seconds.append(time.perf_counter() - begun)
    return 2 * side**3 / min(seconds[3:])


def synchronise(device: torch.device) -> None:
    """Waits until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count_operations(config: Config) -> int:
    """Multiply-adds of one crop's forward pass."""
    side = config.training.crop
    # networks of libraries cannot be built on the meta device, which computes shapes alone
    device = "meta" if config.model.architecture == "unet" else "cpu"
    with torch.device(device), torch.no_grad():
        model = build_model(config.model, CHANNELS, pretrained=False)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, config.model.in_channels, side, side))
    return int(counter.get_total_flops() // 2)


def peak_fraction(operations: int, images_per_second: float, peak: float) -> float:
    """Fraction of the peak that a training uses; `operations` as of `count_operations`."""
    return 2 * FORWARD_AND_BACKWARD * operations * images_per_second / peak


def measure_speed(
    fabric: Fabric,
    config: Config,
    images: Images | PooledImages,
    fold: Fold,
    workers: int,
    seconds: float,
    started: float,
    compiled: bool = False,
) -> Speed:
    """Trains and predicts for `seconds` each, on the training's own crops; keeps nothing.

    `started` is the time (`time.time`) at which this process was started.
    """
    chunk = CHUNK if fabric.device.type == "cuda" else CHUNK_CPU
    endless = {"steps": 10**6, "steps_per_epoch": chunk, "validation_images": None}
    measured = config.model_copy(update={"training": config.training.model_copy(update=endless)})
    crops = Crops(images, fold.training, measured, fold.number)
    model = build_model(measured.model, CHANNELS, pretrained=False)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wrapped, state = set_up(fabric, model, measured.training, compiled)
    batches = iter(open_loader(fabric, crops, 0, measured, workers))
    criterion = build_loss(measured.loss, measured.target)

    hidden = Progress("measure", "steps", shown=False)

    def train() -> float:
        begun = time.perf_counter()
        train_epoch(fabric, wrapped, state, batches, criterion, measured, fold.number, hidden)
        synchronise(fabric.device)
        return time.perf_counter() - begun

    train()
    start = max(0.0, time.time() - started)
    spent = [train()]
    while sum(spent) < seconds:
        spent.append(train())
    validation, prediction = _time_prediction(state.network, measured, images, fold, fabric.device)
    return Speed(
        images_per_second=chunk * len(spent) * config.training.batch_size / sum(spent),
        start=start,
        validation=validation,
        prediction=prediction,
        memory=peak_memory(),
    )


def _time_prediction(
    network: torch.nn.Module,
    config: Config,
    images: Images | PooledImages,
    fold: Fold,
    device: torch.device,
) -> tuple[float, float]:
    """Seconds a megapixel of a validation and of a prediction; none where no image is held out."""
    if not fold.validation:
        return 0.0, 0.0
    chosen = Fold(fold.number, fold.training, sorted(fold.validation)[:1])
    megapixels = count_megapixels(images, chosen.validation)
    begun = time.perf_counter()
    validate(network, config, images, chosen, device)
    validated = time.perf_counter()
    predictor = Predictor(network, config, device, autocast_type(config.training.precision, device))
    predictor(images.image(chosen.validation[0]))
    predicted = time.perf_counter()
    return (validated - begun) / megapixels, (predicted - validated) / megapixels


def count_megapixels(images: Images | PooledImages, ids: Sequence[str]) -> float:
    """Megapixels of prepared images."""
    owner = images.images if isinstance(images, PooledImages) else images
    sizes = [owner.size(image_id) for image_id in ids]
    return sum(height * width for height, width in sizes) / 1e6
