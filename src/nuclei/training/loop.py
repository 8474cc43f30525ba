"""Training of one fold: `fit` calls `train_epoch` and `validate`; each reads in the order in which
things happen.

Lightning Fabric supplies device, precision and the distributed launch. Every epoch ends with
`last.pt`; a killed run resumes from it and ends with the same weights as an uninterrupted one.
"""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nuclei.arrays import CHANNELS, LabelMap, UInt8Array
from nuclei.config import Config
from nuclei.data.dataset import Batches, Crops
from nuclei.data.device_crops import DeviceCrops
from nuclei.data.external_sets import PooledImages
from nuclei.data.intensity import check_channels, window_image
from nuclei.data.prepared_images import Images
from nuclei.data.splits import Fold
from nuclei.devices import autocast_type
from nuclei.errors import UserError
from nuclei.evaluation.metric import average_precision
from nuclei.inference.predictor import Predictor
from nuclei.models.checkpoint_file import RESULT, write_checkpoint
from nuclei.models.factory import build_model
from nuclei.postprocessing.parameters import Parameters
from nuclei.postprocessing.watershed import segment_maps
from nuclei.progress import Progress, name_job, show_progress
from nuclei.reporting.overlays import draw_comparison
from nuclei.training.checkpoint import (
    LAST,
    State,
    collect_settings,
    is_finished,
    name_hardware,
    resume,
)
from nuclei.training.distributed import lock_folder
from nuclei.training.fabric import Fabric
from nuclei.training.fine_tuning import find_start, load_start
from nuclei.training.logging import (
    describe_progress,
    draw_pictures,
    open_events,
    open_progress,
    peak_memory,
    record_epoch,
)
from nuclei.training.losses import build_loss
from nuclei.training.optimizer import set_up
from nuclei.training.pseudo_labels import label_test_images

log = logging.getLogger(__name__)

LOADER_TIMEOUT = 600
"""Seconds without a batch after which a stuck loader worker ends the run with an error."""
STEPS_PER_READING = 20
"""Steps whose losses stay on a GPU until they are read together: reading a loss synchronises with
the GPU.
"""
PICTURES = 4
"""Validation images that TensorBoard shows with annotation and prediction."""


def fit(
    fabric: Fabric,
    config: Config,
    images: Images | PooledImages,
    fold: Fold,
    folder: Path,
    runs: Path,
    workers: int = 0,
    compiled: bool = False,
) -> None:
    """Trains one fold and writes its weights to `folder`, with `log.csv` and TensorBoard events.

    `last.pt` is there while the training runs. `runs` holds the experiments that the config names,
    as <experiment>/fold_<k>: the start weights of a fine-tuning, the teacher of pseudo-labels. A
    second process that trains the same fold waits for the first one and keeps its result.

    Raises:
        UserError: a loss that is not finite; no compiler; an input that images do not have.
    """
    model, start = build_network(config, fold, runs)
    labelled = _label_test_images(config, runs, fold, images)
    crops = Crops(images, fold.training, config, fold.number, labelled)
    settings = collect_settings(config, fabric.device, images, crops, start)
    with lock_folder(fabric, folder) as waited:
        done = fabric.is_global_zero and is_finished(folder, settings, waited)
        if not fabric.broadcast(done):
            wrapped, state = set_up(fabric, model, config.training, compiled)
            resume(fabric, state, folder, settings)
            batches = iter(open_loader(fabric, crops, state.epoch, config, workers))
            _train_epochs(fabric, wrapped, state, batches, config, images, fold, folder, settings)
            if fabric.is_global_zero:
                _write_result(fabric, state, config, crops, images, folder, settings)
        _remove_last(fabric, folder)


def _train_epochs(
    fabric: Fabric,
    wrapped: Any,
    state: State,
    batches: Iterator[Any],
    config: Config,
    images: Images | PooledImages,
    fold: Fold,
    folder: Path,
    settings: Mapping[str, str],
) -> None:
    """Trains all epochs that are left; each ends with its row in `log.csv` and, but for the last,
    `last.pt`.
    """
    started = time.monotonic()
    minutes_before = state.rows[-1]["minutes"] if state.rows else 0.0
    criterion = build_loss(config.loss, config.target)
    epochs = -(-config.training.steps // config.training.steps_per_epoch)
    done = state.epoch * config.training.steps_per_epoch
    with open_events(fabric, folder, done) as events, open_progress(fabric, config, fold, done) as progress:
        while state.epoch < epochs:
            row = train_epoch(fabric, wrapped, state, batches, criterion, config, fold.number, progress)
            state.rows.append(row)
            if events:
                due = state.epoch == epochs or state.epoch % config.training.validate_every == 0
                if due and fold.validation:
                    score, pictures = validate(state.network, config, images, fold, fabric.device)
                    row["validation_score"] = score
                    draw_pictures(events, pictures, int(row["step"]))
                row["minutes"] = minutes_before + (time.monotonic() - started) / 60
                row["peak_mib"] = peak_memory()
                record_epoch(events, folder, state.rows)
                if state.epoch < epochs:
                    state.save(folder / LAST, settings)
            fabric.barrier()


def build_network(config: Config, fold: Fold, runs: Path) -> tuple[nn.Module, Path | None]:
    """The network before its first step, and the file of its start weights where it is
    fine-tuned.
    """
    check_channels(config.model.in_channels)
    training = config.training
    torch.manual_seed(_step_seed(training.seed, fold.number, 0))
    model = build_model(config.model, CHANNELS, pretrained=not training.start)
    start: Path | None = None
    if training.start:
        # a network trained on all images starts from the one of the first fold
        start = find_start(runs, training.start, fold.number if fold.validation else 0)
        load_start(model, start, fold)
    return model.to(memory_format=torch.channels_last), start  # type: ignore[call-overload]


def _write_result(
    fabric: Fabric,
    state: State,
    config: Config,
    crops: Crops,
    images: Images | PooledImages,
    folder: Path,
    settings: Mapping[str, str],
) -> None:
    external = images.provenance if isinstance(images, PooledImages) else []
    write_checkpoint(
        folder / RESULT, state.network, config, crops.fold, crops.ids, name_hardware(fabric), settings, external
    )


def _label_test_images(
    config: Config, runs: Path, fold: Fold, images: Images | PooledImages
) -> Mapping[str, LabelMap]:
    """The pseudo-labels that the config asks for, by image id."""
    experiment = config.training.pseudo_labels
    return label_test_images(runs, experiment, fold, images) if experiment else {}


def _remove_last(fabric: Fabric, folder: Path) -> None:
    """Removes `last.pt`, for which the result must be on disk."""
    if fabric.is_global_zero and (folder / RESULT).is_file():
        (folder / LAST).unlink(missing_ok=True)


def train_epoch(
    fabric: Fabric,
    model: Any,
    state: State,
    batches: Iterator[Any],
    criterion: nn.Module,
    config: Config,
    fold: int,
    progress: Progress,
) -> dict[str, float]:
    """Trains one epoch and returns its log row: epoch, step, loss, learning_rate,
    images_per_second.

    `progress` advances by one with each optimizer step.
    """
    training = config.training
    model.train()
    first = state.epoch * training.steps_per_epoch
    steps = range(first, min(training.steps, first + training.steps_per_epoch))
    losses: list[float] = []
    unread: list[tuple[int, Any, Tensor]] = []
    started = time.monotonic()
    for step in steps:
        pixels_BCHW, target_BCHW, *weight_B1HW, ids = next(batches)
        pixels_BCHW = fabric.to_device(pixels_BCHW).contiguous(memory_format=torch.channels_last)
        target_BCHW = fabric.to_device(target_BCHW)
        # dropout depends on the step alone, so a resumed run repeats it
        torch.manual_seed(_step_seed(training.seed, fold, step + 1))
        loss = criterion(model(pixels_BCHW), target_BCHW, *map(fabric.to_device, weight_B1HW))
        fabric.backward(loss)
        fabric.clip_gradients(model, state.optimizer, max_norm=training.gradient_clip, error_if_nonfinite=False)
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.schedule.step()
        if state.average:
            state.average.update_parameters(state.model)
        unread.append((step, ids, loss.detach()))
        if step + 1 == steps.stop or len(unread) == (1 if fabric.device.type == "cpu" else STEPS_PER_READING):
            losses += _read_losses(unread, state.epoch)
            unread.clear()
            progress.describe(describe_progress(state.rows, float(np.mean(losses[-50:]))))
        progress.update()
    state.epoch += 1
    return {
        "epoch": state.epoch,
        "step": steps.stop,
        "loss": _mean_over_processes(fabric, float(np.mean(losses))),
        "learning_rate": float(state.schedule.get_last_lr()[-1]),
        "images_per_second": len(losses) * training.batch_size / (time.monotonic() - started),
    }


def _read_losses(unread: list[tuple[int, Any, Tensor]], epoch: int) -> list[float]:
    """The losses of some steps, given with step and image ids, read from the device at once.

    Raises:
        UserError: one is not finite.
    """
    losses: list[float] = torch.stack([loss for _, _, loss in unread]).tolist()
    for (step, ids, _), loss in zip(unread, losses, strict=True):
        if not math.isfinite(loss):
            raise UserError(
                f"loss is {loss} in epoch {epoch}, step {step}, images {sorted(set(ids))}: look at these images, "
                "lower training.learning_rate, or set training.precision to 32-true"
            )
    return losses


def validate(
    model: nn.Module,
    config: Config,
    images: Images | PooledImages,
    fold: Fold,
    device: torch.device,
) -> tuple[float, dict[str, UInt8Array]]:
    """Competition score on held-out images, as a submission would be made but without test-time
    augmentation or tuning.

    The second result holds PICTURES of the images by id: image, annotation and prediction side by
    side, (H, 3 * W, 3) uint8.
    """
    plain = config.prediction.model_copy(update={"flips": 1, "scales": (1.0,)})
    precision = autocast_type(config.training.precision, device)
    predictor = Predictor(model, config.model_copy(update={"prediction": plain}), device, precision)
    ids = sorted(fold.validation)
    if config.training.validation_images:
        ids = ids[:: max(1, len(ids) // config.training.validation_images)]
    drawn = ids[:: max(1, len(ids) // PICTURES)][:PICTURES]
    scores, pictures = [], {}
    job = name_job("validate", config.name, fold.number)
    for image_id in show_progress(ids, job, "images", summary=False):
        image, truth = images.image(image_id), images.label_map(image_id)
        predicted = segment_maps(predictor(image), Parameters())
        scores.append(average_precision(truth, predicted).mean())
        if image_id in drawn:
            pictures[image_id] = draw_comparison(window_image(image, config.intensity), truth, predicted)
    return float(np.mean(scores)), pictures


def _mean_over_processes(fabric: Fabric, value: float) -> float:
    """The mean of a value over all processes, each of which knows the loss of its own part of the
    batches.
    """
    if fabric.world_size == 1:
        return value
    mean: Any = fabric.all_reduce(torch.tensor(value, device=fabric.device), reduce_op="mean")
    return float(mean)


def open_loader(fabric: Fabric, crops: Crops, epoch: int, config: Config, workers: int) -> Any:
    """The batches of this process, from the start of an epoch to the end of the training.

    With `augmentation.place` "device" there are no loader processes.
    """
    training = config.training
    first_step = epoch * training.steps_per_epoch
    batches = Batches(first_step, training.steps, training.batch_size, fabric.global_rank, fabric.world_size)
    if config.augmentation.place == "device":
        return DeviceCrops(crops, batches, fabric.device)
    if workers:
        crops.read_all()
    return DataLoader(
        crops,
        batch_sampler=batches,
        num_workers=workers,
        timeout=LOADER_TIMEOUT if workers else 0,
        pin_memory=fabric.device.type == "cuda",
    )


def _step_seed(seed: int, fold: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, fold, step]).generate_state(1, np.uint64)[0] >> 1)
