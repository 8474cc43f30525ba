"""Training of one fold: `fit` calls `train_epoch` and `validate`; each reads in the order in which things happen.

Lightning Fabric supplies device, precision and the distributed launch. Every epoch ends with `last.pt`; a run that was
killed goes on from it and ends with the same weights as one that was not.
"""

import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from tqdm import tqdm

from nuclei.arrays import CHANNELS, UInt8Array
from nuclei.config import Config, TrainingConfig
from nuclei.data.dataset import Batches, Crops
from nuclei.data.intensity import window_image
from nuclei.data.prepared_images import Images
from nuclei.data.splits import Fold
from nuclei.devices import autocast_type
from nuclei.errors import UserError
from nuclei.evaluation.metric import average_precision
from nuclei.inference.predictor import Predictor
from nuclei.models.checkpoint_file import write_checkpoint
from nuclei.models.factory import build_model, parameter_groups
from nuclei.postprocessing.parameters import Parameters
from nuclei.postprocessing.watershed import segment_maps
from nuclei.reporting.overlays import draw_comparison
from nuclei.training.checkpoint import State, average_weights, fingerprint_run, name_hardware, resume
from nuclei.training.fine_tuning import find_start, load_start
from nuclei.training.logging import describe_progress, draw_pictures, open_bar, open_events, peak_memory, record_epoch
from nuclei.training.losses import build_loss
from nuclei.training.pseudo_labels import label_test_images

LOADER_TIMEOUT = 600
"""Seconds without a batch after which a stuck loader worker ends the run with an error."""
UNREAD = 20
"""Steps whose losses a GPU keeps until they are read: whoever reads one waits for all that the GPU has still to do."""
PICTURES = 4
"""Images of a validation that TensorBoard shows with annotation and prediction."""


def fit(
    fabric: Fabric, config: Config, images: Images, fold: Fold, folder: Path, workers: int, compiled: bool = False
) -> None:
    """Trains one fold and writes `last.pt`, `log.csv`, TensorBoard events and at the end `best.pt` to `folder`.

    A compiled network takes its steps faster, after a minute or more in which it is compiled; its weights are those of
    the network itself.

    Raises:
        UserError: the loss is not finite (with epoch, step and image ids); no compiler to compile the network with.
    """
    training = config.training
    started = time.monotonic()
    torch.manual_seed(_step_seed(training.seed, fold.number, 0))
    model = build_model(config.model, CHANNELS, pretrained=not training.start)
    runs = folder.parent.parent
    if training.start:
        load_start(model, find_start(runs, training.start, fold.number), fold)
    labelled = label_test_images(runs, training.pseudo_labels, fold, images) if training.pseudo_labels else {}
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wrapped, state = set_up(fabric, model, training, compiled)
    fingerprint = fingerprint_run(config, fold, labelled)
    resume(state, folder, fingerprint)
    minutes_before = state.rows[-1]["minutes"] if state.rows else 0.0

    crops = Crops(images, fold.training, config, fold.number, labelled)
    batches = iter(open_loader(fabric, crops, state.epoch, config, workers))
    criterion = build_loss(config.loss, config.target)
    epochs = -(-training.steps // training.steps_per_epoch)
    done = state.epoch * training.steps_per_epoch
    with open_events(fabric, folder, done) as events, open_bar(fabric, config, fold, done) as bar:
        while state.epoch < epochs:
            row = train_epoch(fabric, wrapped, state, batches, criterion, config, fold.number, bar)
            last = state.epoch == epochs
            if fabric.is_global_zero and (last or state.epoch % training.validate_every == 0):
                network = state.average.module if state.average else state.model
                row["validation_score"], pictures = validate(network, config, images, fold, fabric.device)
                draw_pictures(events, pictures, int(row["step"]))
            row["minutes"] = minutes_before + (time.monotonic() - started) / 60
            row["peak_mib"] = peak_memory()
            state.rows.append(row)
            if events:
                record_epoch(events, folder, state.rows)
                if not last:
                    state.save(folder / "last.pt", fingerprint)
            fabric.barrier()
    if fabric.is_global_zero:
        network = state.average.module if state.average else state.model
        write_checkpoint(folder / "best.pt", network, config, fold.number, crops.ids, name_hardware(fabric))
        (folder / "last.pt").unlink(missing_ok=True)


def set_up(
    fabric: Fabric, model: nn.Module, training: TrainingConfig, compiled: bool = False, fused: bool = True
) -> tuple[Any, State]:
    """The network as a training step calls it, on its device, and the state of a training that has not begun."""
    optimizer = torch.optim.AdamW(parameter_groups(model, training), fused=fused)
    schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, training))
    wrapped, optimizer = fabric.setup(compile_network(model, fabric.device) if compiled else model, optimizer)
    return wrapped, State(model, average_weights(model, training.ema_decay), optimizer, schedule, 0, [])


def compile_network(model: nn.Module, device: torch.device) -> nn.Module:
    """The network with its layers fused; it holds the same parameters. Crops are of one size, so sizes are fixed.

    Raises:
        UserError: on a CPU, where torch writes C++, without a C++ compiler.
    """
    compilers = (os.environ.get("CXX", "g++"), "g++", "clang++")
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise UserError(
            "--compile: no C++ compiler (g++ or clang++) on the path; install one, or train without --compile"
        )
    compiled: nn.Module = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    return compiled


def train_epoch(
    fabric: Fabric,
    model: Any,
    state: State,
    batches: Iterator[Any],
    criterion: nn.Module,
    config: Config,
    fold: int,
    bar: Any,
) -> dict[str, float]:
    """Trains one epoch and returns its row of the log: epoch, step, loss, learning_rate, images_per_second.

    `bar` (tqdm) goes on a step with each of the optimiser's.
    """
    training = config.training
    model.train()
    first = state.epoch * training.steps_per_epoch
    steps = range(first, min(training.steps, first + training.steps_per_epoch))
    losses: list[float] = []
    waiting: list[tuple[int, Any, Tensor]] = []
    started = time.monotonic()
    for step in steps:
        pixels_BCHW, target_BCHW, *weight_B1HW, ids = next(batches)
        pixels_BCHW = fabric.to_device(pixels_BCHW).contiguous(memory_format=torch.channels_last)
        target_BCHW = fabric.to_device(target_BCHW)
        # what is random inside the network hangs on the step alone, so that a resumed run repeats it
        torch.manual_seed(_step_seed(training.seed, fold, step + 1))
        loss = criterion(model(pixels_BCHW), target_BCHW, *map(fabric.to_device, weight_B1HW))
        fabric.backward(loss)
        fabric.clip_gradients(model, state.optimizer, max_norm=training.gradient_clip, error_if_nonfinite=False)
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.schedule.step()
        if state.average:
            state.average.update_parameters(state.model)
        waiting.append((step, ids, loss.detach()))
        if step + 1 == steps.stop or len(waiting) == (1 if fabric.device.type == "cpu" else UNREAD):
            losses += _read_losses(waiting, state.epoch)
            waiting.clear()
            bar.set_postfix_str(describe_progress(state.rows, float(np.mean(losses[-50:]))), refresh=False)
        bar.update()
    state.epoch += 1
    return {
        "epoch": state.epoch,
        "step": steps.stop,
        "loss": _mean_over_processes(fabric, float(np.mean(losses))),
        "learning_rate": float(state.schedule.get_last_lr()[-1]),
        "images_per_second": len(losses) * training.batch_size / (time.monotonic() - started),
    }


def _read_losses(waiting: list[tuple[int, Any, Tensor]], epoch: int) -> list[float]:
    """The losses of some steps, with the ids of their images, in one reading of the device.

    Raises:
        UserError: one is not finite.
    """
    losses: list[float] = torch.stack([loss for _, _, loss in waiting]).tolist()
    for (step, ids, _), loss in zip(waiting, losses, strict=True):
        if not math.isfinite(loss):
            raise UserError(
                f"loss is {loss} in epoch {epoch}, step {step}, images {sorted(set(ids))}: look at these images, "
                "lower training.learning_rate, or set training.precision to 32-true"
            )
    return losses


def validate(
    model: nn.Module, config: Config, images: Images, fold: Fold, device: torch.device
) -> tuple[float, dict[str, UInt8Array]]:
    """Competition score on held-out images by the submission's own path, without averaging views or tuning.

    Beside it, for PICTURES of the images by id, image, annotation and prediction side by side (H, 3 * W, 3) uint8.
    """
    once = config.model_copy(update={"prediction": config.prediction.model_copy(update={"flips": 1, "scales": (1.0,)})})
    predictor = Predictor(model, once, device, autocast_type(config.training.precision, device))
    ids = sorted(fold.validation)
    if config.training.validation_images:
        ids = ids[:: max(1, len(ids) // config.training.validation_images)]
    drawn = ids[:: max(1, len(ids) // PICTURES)][:PICTURES]
    scores, pictures = [], {}
    for image_id in tqdm(ids, desc="validate", unit="image", mininterval=1, leave=False):
        image, truth = images.image(image_id), images.label_map(image_id)
        predicted = segment_maps(predictor(image), Parameters())
        scores.append(average_precision(truth, predicted).mean())
        if image_id in drawn:
            pictures[image_id] = draw_comparison(window_image(image, config.intensity), truth, predicted)
    return float(np.mean(scores)), pictures


def learning_rate_factor(step: int, training: TrainingConfig) -> float:
    """Share of the learning rate at a step: a linear rise over the warm-up, then a cosine to zero at the last step."""
    warmup = max(1, round(training.warmup * training.steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, training.steps - warmup)
    return float(0.5 * (1 + np.cos(np.pi * min(1.0, done))))


def _mean_over_processes(fabric: Fabric, value: float) -> float:
    """Each process knows the loss of its share of the batches alone."""
    if fabric.world_size == 1:
        return value
    mean: Any = fabric.all_reduce(torch.tensor(value, device=fabric.device), reduce_op="mean")
    return float(mean)


def open_loader(fabric: Fabric, crops: Crops, epoch: int, config: Config, workers: int) -> Any:
    """The batches of this process from an epoch on to the end of the training."""
    training = config.training
    batches = Batches(
        epoch * training.steps_per_epoch, training.steps, training.batch_size, fabric.global_rank, fabric.world_size
    )
    return DataLoader(
        crops,
        batch_sampler=batches,
        num_workers=workers,
        timeout=LOADER_TIMEOUT if workers else 0,
        pin_memory=fabric.device.type == "cuda",
    )


def _step_seed(seed: int, fold: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, fold, step]).generate_state(1, np.uint64)[0] >> 1)
