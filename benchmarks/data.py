"""What the rows are measured on: prepared images, annotation, and simulated probability maps."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from nuclei.data.prepared_images import Images
from nuclei.data.targets import energy_target
from nuclei.postprocessing.parameters import Parameters
from nuclei.postprocessing.watershed import segment_maps


@dataclass(frozen=True)
class Data:
    """Folders `raw` and `processed`, a sample of training `ids`, and its `name` in words."""

    raw: Path
    processed: Path
    splits: Path
    images: Images
    ids: list[str]
    name: str

    def truths(self) -> list[np.ndarray]:
        return [self.images.label_map(image_id) for image_id in self.ids]

    def maps(self) -> list[np.ndarray]:
        return [blurred_maps(truth, number) for number, truth in enumerate(self.truths())]

    def predictions(self) -> list[np.ndarray]:
        return [segment_maps(maps, Parameters()) for maps in self.maps()]

    def folder(self, image_id: str) -> Path:
        """The image's folder in the archive."""
        found = next(
            (self.raw / name / image_id for name in ("stage1_train", "train") if (self.raw / name).is_dir()),
            None,
        )
        if found is None:
            raise ValueError(f"{self.raw}: holds no stage1_train; run `make data` again")
        return found


def open_data(folder: Path, sample: int) -> Data:
    images = Images(folder / "processed")
    ids = sorted(images.ids("train"))
    chosen = ids[:: max(1, len(ids) // sample)][:sample]
    name = f"{len(chosen)} of {len(ids)} training images in {folder.name}/"
    return Data(folder / "raw", folder / "processed", folder / "splits.csv", images, chosen, name)


def blurred_maps(label_map: np.ndarray, seed: int) -> np.ndarray:
    """Maps (3, H, W) uint8 of a mediocre network: the target blurred, scaled, with smooth noise."""
    random = np.random.default_rng(seed)
    sigma, gains = random.uniform(0.8, 2.5), random.uniform(0.7, 1.4, 3)
    channels = []
    for channel, gain in zip(energy_target(label_map, 0.15, 4.0), gains, strict=True):
        noise = cv2.GaussianBlur(random.normal(0, 0.3, channel.shape).astype(np.float32), (0, 0), 1.5)
        channels.append(cv2.GaussianBlur(channel, (0, 0), sigma) * gain + noise)
    return np.clip(np.round(np.stack(channels) * 255), 0, 255).astype(np.uint8)
