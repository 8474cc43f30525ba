"""Fine-tuning on a user's own corrected pictures, in minutes on a CPU, scored on pictures held out.

Against forgetting, what is written is the mean of the start weights and the fine-tuned ones.
Source: Wortsman et al., Robust fine-tuning of zero-shot models (2022).
"""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from nuclei.arrays import CHANNELS
from nuclei.config import Config, TrainingConfig
from nuclei.config_files import parse_config
from nuclei.data.dataset import Crops
from nuclei.data.splits import Fold
from nuclei.devices import autocast_type, choose_device, resolve_precision
from nuclei.errors import UserError
from nuclei.evaluation.metric import average_precision
from nuclei.inference.named_weights import find_weights
from nuclei.inference.predictor import Predictor
from nuclei.inference.weights import Weights, find_files
from nuclei.io.picture import Channel
from nuclei.models.factory import build_model
from nuclei.models.weights_file import VERSION, Card, read_weights, write_weights
from nuclei.progress import Progress, name_job
from nuclei.publishing.weight_average import average_tensors
from nuclei.segmentation.corrections import CorrectedPictures, read_corrections
from nuclei.segmentation.plane import segment_plane
from nuclei.training.distributed import launch
from nuclei.training.fabric import Fabric
from nuclei.training.loop import open_loader, train_epoch
from nuclei.training.losses import build_loss
from nuclei.training.optimizer import set_up
from nuclei.training.settings import MINUTES, check_settings

log = logging.getLogger(__name__)

FEW = 4
"""With fewer files each is held out once, by a network of its own."""
HELD_OUT = 5
"""With more, one of so many files is held out."""
TUNED_WEIGHT = 0.5
"""Weight of the fine-tuned network in the mean with the start."""
_STEPS = (10, 1500)
_STEPS_PER_EPOCH = 10
_CROP = 128
_TRIALS = 4

Tensors = Mapping[str, Tensor]


class PictureScore(BaseModel):
    """The competition's score of a held-out picture by the start weights and by fine-tuned ones."""

    model_config = ConfigDict(frozen=True)

    picture: str
    nuclei: int
    before: float
    after: float


class FineTuned(BaseModel):
    """A file of fine-tuned weights, and how it came about."""

    model_config = ConfigDict(frozen=True)

    weights: Path
    start: Path
    trained_on: int
    """Pictures whose labels reached the weights."""
    steps: int
    minutes: float
    scores: list[PictureScore]

    @property
    def before(self) -> float:
        return float(np.mean([score.before for score in self.scores]))

    @property
    def after(self) -> float:
        return float(np.mean([score.after for score in self.scores]))

    def describe(self) -> str:
        """A table of the held-out pictures with their mean, and what was written."""
        width = max(len("picture"), *(len(score.picture) for score in self.scores))
        lines = [f"{'held-out picture':{width}}  nuclei  before   after"]
        width = max(width, len("held-out picture"))
        for score in self.scores:
            lines.append(f"{score.picture:{width}}  {score.nuclei:6}  {score.before:.4f}  {score.after:.4f}")
        lines.append(f"{'mean':{width}}  {'':6}  {self.before:.4f}  {self.after:.4f}")
        lines.append(
            f"{self.weights}: {self.start} fine-tuned on {self.trained_on} pictures, {self.steps} "
            f"steps in {self.minutes:.1f} min"
        )
        if self.after <= self.before:
            lines.append("no gain on the held-out pictures: correct more pictures, or keep the start weights")
        return "\n".join(lines)


def finetune(
    folder: Path | str,
    out: Path | str,
    start: Path | str | None = None,
    minutes: float = MINUTES,
    channel: Channel | None = None,
    device: str = "auto",
) -> FineTuned:
    """Fine-tunes a network on a folder of corrected pictures and writes it to `out` (.safetensors).

    `start` is a file of weights, a folder (its first file) or a name; absent, the packaged network.
    The pictures are those of `segmentation.corrections.read_corrections`. Some files are held out
    and scored before and after. With fewer than FEW files each is held out once and `minutes` are
    divided among as many networks; the mean of all of them is written.

    Raises:
        UserError: as in `read_corrections`; a single file; an impossible setting; start weights
            that cannot be read.
    """
    out = check_settings(Path(out), minutes)
    started = time.monotonic()
    pictures = read_corrections(Path(folder), channel)
    rounds = split_files(pictures)
    path = find_files(find_weights(start))[0]
    card, tensors = read_weights(path)
    _warn_of_seen(card, rounds)
    config = make_config(card, out.stem)
    fabric = launch(choose_device(device), 1, 1, resolve_precision("auto", choose_device(device)))
    scores, networks, steps = [], [], 0
    for fold in rounds:
        before = _score(_make_weights(path, card, tensors, fabric.device), pictures, fold.validation)
        tuned, done = train(fabric, config, tensors, pictures, fold, minutes / len(rounds))
        networks.append(average_tensors([tensors, tuned], [1 - TUNED_WEIGHT, TUNED_WEIGHT]))
        steps += done
        after = _score(_make_weights(path, card, networks[-1], fabric.device), pictures, fold.validation)
        scores += [_compare(pictures, id_, before[id_], after[id_]) for id_ in fold.validation]
    result = average_tensors(networks, [1.0] * len(networks))
    trained_on = sorted({image_id for fold in rounds for image_id in fold.training})
    after_mean = float(np.mean([score.after for score in scores]))
    write_weights(out, result, _make_card(card, config, pictures, trained_on, after_mean, len(scores)))
    taken = (time.monotonic() - started) / 60
    return FineTuned(
        weights=out, start=path, trained_on=len(trained_on), steps=steps, minutes=taken, scores=scores
    )


def split_files(pictures: CorrectedPictures) -> list[Fold]:
    """Training and held-out pictures, by whole files: one fold, or one a file if there are few.

    Raises:
        UserError: a single file.
    """
    files = sorted({picture.file for picture in pictures.pictures.values()})
    if len(files) < 2:
        raise UserError(
            f"{pictures.folder}: label maps of one picture file; at least 2 are needed, since one "
            "is held out to measure the gain. Correct another picture, or cut the file into two"
        )
    if len(files) < FEW:
        chosen = [[file] for file in files]
    else:
        count = max(1, len(files) // HELD_OUT)
        chosen = [[files[int((number + 0.5) * len(files) / count)] for number in range(count)]]
    return [_make_fold(pictures, number, held_out) for number, held_out in enumerate(chosen)]


def _make_fold(pictures: CorrectedPictures, number: int, held_out: Sequence[str]) -> Fold:
    kept: list[str] = []
    left: list[str] = []
    for image_id, picture in pictures.pictures.items():
        (left if picture.file in held_out else kept).append(image_id)
    return Fold(number, kept, left)


def _warn_of_seen(card: Card, rounds: Sequence[Fold]) -> None:
    seen = set(card.trained_on) & {image_id for fold in rounds for image_id in fold.validation}
    if seen:
        log.warning(
            "the start weights were trained on %d of the held-out pictures (%s ...), so both "
            "scores are too high",
            len(seen),
            min(seen),
        )


def make_config(card: Card, name: str) -> Config:
    """The start's config with training settings for few pictures; `steps` follow from the time."""
    config = parse_config(card.config, "start weights")
    rate = 1e-3
    training = TrainingConfig(
        batch_size=8,
        crop=min(_CROP, config.training.crop),
        learning_rate=rate,
        encoder_learning_rate=rate / 5 if config.training.encoder_learning_rate else None,
        steps_per_epoch=_STEPS_PER_EPOCH,
        warmup=0.1,
        ema_decay=0.95,
        balance=0.0,
    )
    return config.model_copy(update={"name": name, "training": training})


def train(
    fabric: Fabric,
    config: Config,
    start: Tensors,
    pictures: CorrectedPictures,
    fold: Fold,
    minutes: float,
) -> tuple[Tensors, int]:
    """Trains from start weights for about `minutes`; returns the weights' EMA, and the steps."""
    model = build_model(config.model, CHANNELS, pretrained=False)
    model.load_state_dict(start)
    model = model.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    criterion = build_loss(config.loss, config.target)
    crops = Crops(pictures, fold.training, config, fold.number)
    seconds = _time_step(fabric, model, criterion, crops)
    steps = int(np.clip(60 * minutes / seconds, *_STEPS)) // _STEPS_PER_EPOCH * _STEPS_PER_EPOCH
    config = config.model_copy(update={"training": config.training.model_copy(update={"steps": steps})})
    crops.config = config
    wrapped, state = set_up(fabric, model, config.training)
    batches = iter(open_loader(fabric, crops, 0, config, workers=0))
    with Progress(name_job("train", config.name), "steps", steps) as progress:
        while state.epoch * _STEPS_PER_EPOCH < steps:
            state.rows.append(
                train_epoch(fabric, wrapped, state, batches, criterion, config, fold.number, progress)
            )
    return {name: tensor.detach().cpu() for name, tensor in state.network.state_dict().items()}, steps


def _time_step(fabric: Fabric, model: nn.Module, criterion: nn.Module, crops: Crops) -> float:
    """Fastest of a few training steps in seconds, crops to gradients; weights stay unchanged."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    size = crops.config.training.batch_size
    model.train()
    taken = []
    for number in range(_TRIALS):
        begin = time.monotonic()
        examples = [crops[position] for position in range(number * size, (number + 1) * size)]
        pixels, target, *weight = (torch.stack(column) for column in list(zip(*examples, strict=True))[:-1])
        with fabric.autocast():
            loss = criterion(
                model(pixels.to(fabric.device)),
                target.to(fabric.device),
                *(one.to(fabric.device) for one in weight),
            )
        loss.backward()
        float(loss.detach())
        taken.append(time.monotonic() - begin)
    model.zero_grad()
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    return min(taken)


def _make_weights(path: Path, card: Card, tensors: Tensors, device: torch.device) -> Weights:
    """Weights that predict as those of a file with this card would."""
    config = parse_config(card.config, str(path))
    model = build_model(config.model, CHANNELS, pretrained=False)
    model.load_state_dict(tensors)
    predictor = Predictor(model, config, device, autocast_type(config.training.precision, device))
    return Weights(path, [card], [predictor], [1.0], card.parameters.general, "")


def _score(weights: Weights, pictures: CorrectedPictures, ids: Sequence[str]) -> dict[str, float]:
    """The competition's score of pictures as `segment` finds their nuclei, by id."""
    scores = {}
    for image_id in ids:
        predicted, _ = segment_plane(pictures.image(image_id), weights)
        scores[image_id] = float(average_precision(pictures.label_map(image_id), predicted).mean())
    return scores


def _compare(pictures: CorrectedPictures, image_id: str, before: float, after: float) -> PictureScore:
    picture = pictures.pictures[image_id]
    nuclei = int(picture.label_map.max(initial=0))
    return PictureScore(picture=picture.name, nuclei=nuclei, before=before, after=after)


def _make_card(
    start: Card, config: Config, pictures: CorrectedPictures, trained_on: list[str], score: float, images: int
) -> Card:
    """Model card of fine-tuned weights: origin, and the score on the held-out pictures."""
    return Card(
        version=VERSION,
        name=config.name,
        fold=None,
        config=config.model_dump(mode="json"),
        parameters=start.parameters,
        score=score,
        images=images,
        trained_on=sorted({*start.trained_on, *trained_on}),
        data=f"{start.data}; then {len(trained_on)} pictures of {pictures.folder} (from {start.name})",
        licence=f"{start.licence}; {pictures.folder}: that of its owner",
    )
