"""Training batches that are cropped, augmented and given their targets on the device that trains.

A crop is a function of (seed, fold, epoch, position) alone, to rounding, whatever the batch, the
number of processes and the device.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from nuclei.arrays import Int64Array
from nuclei.config import IntensityConfig
from nuclei.data.augmentation import SCALES
from nuclei.data.counter_random import seeds_of
from nuclei.data.dataset import Crops
from nuclei.data.device_augmentation import RANGES, Draws, change_appearance, draw_windows, place_samples
from nuclei.data.device_images import DeviceImages
from nuclei.data.device_targets import make_targets
from nuclei.data.intensity import IMAGENET_DEVIATION, IMAGENET_MEAN


class DeviceCrops:
    """The batches of `crops` for the positions of each batch, made on a device.

    A batch is input (B, C, side, side), target (B, 3, side, side), pixel weights (B, 1, side, side)
    if the loss uses them, and the ids of the images. The images are those that `crops` holds.
    """

    def __init__(self, crops: Crops, positions: Iterable[list[int]], device: torch.device) -> None:
        self.crops, self.positions, self.device = crops, positions, device
        self.images = DeviceImages(crops.images, crops.label_maps, crops.config.target.core, device)

    def __iter__(self) -> Iterator[list[Any]]:
        for positions in self.positions:
            yield self.batch(positions)

    @torch.no_grad()
    def batch(self, positions: list[int]) -> list[Any]:
        """The examples at these positions."""
        config, crops = self.crops.config, self.crops
        epochs, places = np.divmod(np.array(positions), crops.epoch_size)
        numbers = self._draw_images(epochs, places)
        draws = Draws(seeds_of(config.training.seed, crops.fold, epochs, places), self.device)
        image_B3HW, labels_BHW, core_BHW = self.sample(numbers, draws)
        preset = config.augmentation.preset
        image_B3HW = change_appearance(image_B3HW, draws, RANGES[preset])
        pixels = normalise(image_B3HW, config.intensity, config.model.in_channels)
        target, weights = make_targets(labels_BHW, core_BHW, self.images.label_count, config)
        ids = [crops.ids[number] for number in numbers]
        return [pixels, target, *([weights] if weights is not None else []), ids]

    def sample(self, numbers: Int64Array, draws: Draws) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Crops of images by number (B,) with the drawn geometry: colours, labels and core maps."""
        augmentation, side = self.crops.config.augmentation, self.crops.config.training.crop
        scales = augmentation.scales or SCALES[augmentation.preset]
        windows, tops, lefts = draw_windows(draws, self.images.sizes[numbers], side, scales)
        rows, columns = place_samples(draws, RANGES[augmentation.preset], windows, tops, lefts, side)
        return self.images.sample(numbers, rows, columns, windows / side)

    def _draw_images(self, epochs: Int64Array, places: Int64Array) -> Int64Array:
        """The images of the examples, drawn as `Crops` draws them."""
        numbers = [
            self.crops.draw_epoch(int(epoch))[place] for epoch, place in zip(epochs, places, strict=True)
        ]
        return np.array(numbers)


def normalise(image_B3HW: torch.Tensor, intensity: IntensityConfig, channels: int) -> torch.Tensor:
    """The network's input (B, C, H, W) float32 of colours in 0..255; see `intensity.normalise`."""
    values = image_B3HW / 255
    if intensity.normalisation == "imagenet":
        mean, deviation = (
            torch.from_numpy(each).to(values.device)[:, None, None]
            for each in (IMAGENET_MEAN, IMAGENET_DEVIATION)
        )
        values = (values - mean) / deviation
    elif intensity.normalisation == "half":
        values = values * 2 - 1
    if channels == 1:
        values = values.mean(1, keepdim=True)
    if intensity.normalisation == "z_score":
        mean, deviation = (
            values.mean((1, 2, 3), keepdim=True),
            values.std((1, 2, 3), keepdim=True, correction=0),
        )
        values = (values - mean) / deviation.clamp_min(1e-3)
    return values.contiguous()
