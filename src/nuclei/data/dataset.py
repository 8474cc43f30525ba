"""Training crops. An example is a function of (seed, fold, epoch, position) alone.

It does not depend on the worker, the rank or the time, so any number of workers, a resumed training
and a distributed one see the same crops.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from nuclei.arrays import BORDER, Float32Array, Float64Array, LabelMap, Labels
from nuclei.config import Config, TargetConfig
from nuclei.data.augmentation import SCALES, Augmentation, draw_crop
from nuclei.data.intensity import normalise, window_image
from nuclei.data.prepared_images import AnnotatedImages
from nuclei.data.targets import energy_target, pixel_weights, three_class_target
from nuclei.errors import UserError

Example = tuple[torch.Tensor, torch.Tensor, str] | tuple[torch.Tensor, torch.Tensor, torch.Tensor, str]
"""Input, target, pixel weights if the loss uses them, and the image id."""


def make_target(label_map: LabelMap, config: TargetConfig) -> Float32Array:
    """Target (3, H, W) float32 of a label map in the config's scheme."""
    if config.scheme == "energy":
        return energy_target(label_map, config.border_scale, config.border_max, config.core)
    return three_class_target(label_map, config.border_scale, config.border_max)


T = TypeVar("T")


class ReadOnce(Sequence[T]):
    """What `read` returns for each id; each is read when it is first asked for, and then kept."""

    def __init__(self, ids: Sequence[str], read: Callable[[str], T]) -> None:
        self._ids, self._read = ids, read
        self._kept: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, number: int) -> T:  # type: ignore[override]
        if number not in self._kept:
            self._kept[number] = self._read(self._ids[number])
        return self._kept[number]


class Crops(Dataset[Example]):
    """Random crops of images: example p is input (C, side, side), target (3, side, side) and image id.

    Pixel weights (1, side, side) come before the id if the loss weights borders or small nuclei.

    p counts the examples of the whole training; an epoch has `steps_per_epoch` times `batch_size`.
    Images are read when they are first drawn, and kept in memory as uint8 after windowing.
    `labelled` adds images with the label maps (H, W) given there, such as pseudo-labels.
    """

    def __init__(
        self,
        images: AnnotatedImages,
        ids: Sequence[str],
        config: Config,
        fold: int,
        labelled: Mapping[str, LabelMap] | None = None,
    ) -> None:
        self.config, self.fold, self.labelled = config, fold, labelled or {}
        self.ids = [*ids, *self.labelled]
        window = config.intensity
        self.images = ReadOnce(self.ids, lambda id_: window_image(images.image(id_), window))
        self.label_maps = ReadOnce(self.ids, lambda id_: self._label_map(images, id_))
        self.weights = self._sampling_weights(images)
        self.augmentation = Augmentation(config.augmentation)
        self.epoch_size = config.training.steps_per_epoch * config.training.batch_size
        self._drawn: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    def read_all(self) -> None:
        """Reads every image now, for processes that are to share the memory."""
        for _ in zip(self.images, self.label_maps, strict=True):
            pass

    def _label_map(self, images: AnnotatedImages, image_id: str) -> Labels:
        pseudo_label = self.labelled.get(image_id)
        label_map = images.label_map(image_id) if pseudo_label is None else pseudo_label
        return label_map.astype(np.uint16)

    def _sampling_weights(self, images: AnnotatedImages) -> Float64Array:
        training = self.config.training
        kind_of = images.source if training.by_source else images.modality
        kinds = [kind_of(image_id) for image_id in self.ids]
        weights = draw_weights(kinds, training.balance)
        if not training.external:
            return weights
        weights = weights * [training.external.get(kind, 1.0) for kind in kinds]
        return np.asarray(weights / weights.sum())

    def __len__(self) -> int:
        return self.config.training.steps * self.config.training.batch_size

    def __getitem__(self, position: int) -> Example:
        cv2.setNumThreads(0)
        epoch, place = divmod(position, self.epoch_size)
        number = int(self.draw_epoch(epoch)[place])
        generator = np.random.default_rng([self.config.training.seed, self.fold, epoch, place])
        image, label_map = draw_crop(
            self.images[number],
            self.label_maps[number],
            self.config.training.crop,
            self.config.augmentation.scales or SCALES[self.config.augmentation.preset],
            generator,
        )
        image, label_map = self.augmentation(image, label_map, int(generator.integers(2**32)))
        pixels = normalise(image, self.config.intensity.normalisation, self.config.model.in_channels)
        target = make_target(label_map, self.config.target)
        example = torch.from_numpy(pixels), torch.from_numpy(target)
        loss = self.config.loss
        if not (loss.border_weight or loss.small_weight):
            return *example, self.ids[number]
        # the border is channel 1 of "energy" and the last class of "three_class"
        border = target[BORDER if self.config.target.scheme == "energy" else -1]
        weights = pixel_weights(label_map, border, loss.border_weight, loss.small_weight)
        return *example, torch.from_numpy(weights), self.ids[number]

    def draw_epoch(self, epoch: int) -> np.ndarray:
        """Number of the image of each example of an epoch, (epoch_size,) int.

        Systematic sampling: an image of weight w is drawn floor(w n) or ceil(w n) times, in random
        order.
        """
        if self._drawn[0] != epoch:
            generator = np.random.default_rng([self.config.training.seed, self.fold, epoch])
            order = generator.permutation(len(self.ids))
            heights = (np.arange(self.epoch_size) + generator.random()) / self.epoch_size
            numbers = order[np.searchsorted(np.cumsum(self.weights[order]), heights).clip(max=len(order) - 1)]
            self._drawn = (epoch, generator.permutation(numbers))
        return self._drawn[1]


def draw_weights(modalities: Sequence[str], balance: float) -> np.ndarray:
    """Sampling probability of each image, (N,) with sum 1.

    A modality of n images has a total in proportion to n ** (1 - balance).
    """
    _, numbers, counts = np.unique(list(modalities), return_inverse=True, return_counts=True)
    weights = (counts.astype(float) ** -balance)[numbers]
    return np.asarray(weights / weights.sum())


class Batches(Sampler[list[int]]):
    """Positions of the examples of each batch from `first_step` on, of the part of one rank.

    Raises:
        UserError: the batch size is no multiple of the number of processes.
    """

    def __init__(
        self, first_step: int, steps: int, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch_size % world_size:
            raise UserError(
                f"training.batch_size = {batch_size} is the batch of all processes and cannot be divided among "
                f"{world_size}; choose a multiple of {world_size}"
            )
        self.first_step, self.steps, self.batch_size = first_step, steps, batch_size
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.steps - self.first_step

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.steps):
            start = step * self.batch_size
            yield list(range(start + self.rank, start + self.batch_size, self.world_size))
