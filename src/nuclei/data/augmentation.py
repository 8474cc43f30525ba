"""Augmentation of training crops by albumentations; the config names a preset."""

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nuclei.arrays import LabelMap, UInt8Array
from nuclei.config import AugmentationConfig
from nuclei.data.appearance import (
    add_haze,
    crowd_nuclei,
    dim_nuclei,
    is_fluorescence,
    is_stained,
    jitter_exposure,
    jitter_stains,
    stain_to_fluorescence,
)


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """While it is open, `module` cannot be imported, unless it has been before."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


# Without this, importing albumentations asks a server for its newest version and waits.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# Its client of the Hugging Face hub takes a tenth of a training's start to import.
with _hidden("huggingface_hub"):
    import albumentations as A

SCALES = {
    "nuclei": (0.6, 1.6),
    "laboratories": (0.5, 2.0),
    "medical": (1.0, 1.0),
    "none": (1.0, 1.0),
}
"""Smallest and largest scale of a crop (multi-scale training), by preset."""


class Augmentation:
    """Augments an image and its label map by a preset; equal seeds give equal results.

    nuclei: what improved scores in the competition (flips, rotation, elastic deformation, grey,
    inversion, noise, blur, contrast, hue, channel order). laboratories: the same in wider ranges,
    with single nuclei dimmed and other exposures, stains and optics. medical: quarter turns, blur
    and gamma. none: nothing.
    """

    def __init__(self, config: AugmentationConfig) -> None:
        self.config = config
        self._compose = A.Compose(PRESETS[config.preset]())

    def __call__(self, image: UInt8Array, label_map: LabelMap, seed: int) -> tuple[UInt8Array, LabelMap]:
        """Augmented image (H, W, 3) uint8 and label map (H, W) int32 of the same size."""
        generator = np.random.default_rng(seed)
        if generator.random() < self.config.copy_paste:
            image, label_map = paste_nuclei(image, label_map, generator)
        rendered = self.config.stain_to_fluorescence
        if rendered and is_stained(image) and generator.random() < rendered:
            image = stain_to_fluorescence(image, generator)
        if self.config.preset == "laboratories":
            image, label_map = change_appearance(image, label_map, generator)
        # The transforms share one random stream. `set_random_seed` would give each its own stream
        # of the
        # same seed; all would draw the same numbers, and a tenth of the crops get every change at
        # once.
        self._compose.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        changed = self._compose(image=image, mask=label_map.astype(np.float32))
        return changed["image"], np.round(changed["mask"]).astype(np.int32)


def change_appearance(
    image: UInt8Array, label_map: LabelMap, generator: np.random.Generator
) -> tuple[UInt8Array, LabelMap]:
    """The preset `laboratories`: crowding, dim and blurred nuclei, exposure, stains, focus."""
    if is_fluorescence(image):
        if generator.random() < 0.15:
            image, label_map = crowd_nuclei(image, label_map, generator)
        if generator.random() < 0.5:
            image = dim_nuclei(image, label_map, (0.1, 0.6), generator)
        if generator.random() < 0.15:
            image = add_haze(image, generator)
        return (jitter_exposure(image, generator) if generator.random() < 0.35 else image), label_map
    if generator.random() < 0.3:
        image = dim_nuclei(image, label_map, (0.3, 0.8), generator)
    changed = jitter_stains(image, generator) if is_stained(image) and generator.random() < 0.5 else image
    return changed, label_map


def draw_crop(
    image: UInt8Array,
    label_map: npt.NDArray[np.integer[Any]],
    side: int,
    scales: tuple[float, float],
    generator: np.random.Generator,
) -> tuple[UInt8Array, LabelMap]:
    """A square crop (side, side) at a random place and scale; the image is padded by mirroring.

    The scale is log-uniform in `scales`. Mirrored pieces of a nucleus keep its label, so a nucleus
    at the image's edge becomes one larger nucleus.
    """
    scale = float(np.exp(generator.uniform(*np.log(scales))))
    window = max(8, round(side / scale))
    missing = [max(0, window - length) for length in label_map.shape]
    if any(missing):
        widths = [(gap // 2, gap - gap // 2) for gap in missing]
        label_map = np.pad(label_map, widths, mode="symmetric")
        image = np.pad(image, [*widths, (0, 0)], mode="symmetric")
    top, left = (int(generator.integers(0, length - window + 1)) for length in label_map.shape)
    image = image[top : top + window, left : left + window]
    label_map = label_map[top : top + window, left : left + window]
    if window == side:
        return image, label_map.astype(np.int32)
    resized = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    labels = cv2.resize(label_map.astype(np.float32), (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.astype(np.uint8, copy=False), labels.astype(np.int32)


def paste_nuclei(
    image: UInt8Array, label_map: LabelMap, generator: np.random.Generator, most: int = 8
) -> tuple[UInt8Array, LabelMap]:
    """Copy-paste: pastes copies of some nuclei beside them, under others, so that more touch."""
    labels = np.unique(label_map)[1:]
    if not len(labels):
        return image, label_map
    image, label_map = image.copy(), label_map.copy()
    height, width = label_map.shape
    following = int(labels[-1]) + 1
    for label in generator.choice(labels, size=min(most, len(labels)), replace=False):
        rows, columns = np.nonzero(label_map == label)
        if not len(rows):
            continue
        extent = max(np.ptp(rows), np.ptp(columns)) + 1
        angle = generator.uniform(0, 2 * np.pi)
        to_rows = rows + round(extent * np.sin(angle))
        to_columns = columns + round(extent * np.cos(angle))
        inside = (to_rows >= 0) & (to_rows < height) & (to_columns >= 0) & (to_columns < width)
        source, place = (rows[inside], columns[inside]), (to_rows[inside], to_columns[inside])
        free = label_map[place] == 0
        if free.sum() < 0.5 * len(rows):
            continue
        source, place = tuple(axis[free] for axis in source), tuple(axis[free] for axis in place)
        image[place] = image[source]
        label_map[place] = following
        following += 1
    return image, label_map


def _geometry() -> list[Any]:
    reflect = cv2.BORDER_REFLECT_101
    rotate = A.Rotate(limit=45, border_mode=reflect, p=1)
    elastic = A.ElasticTransform(alpha=40, sigma=6, border_mode=reflect, approximate=True, p=1)
    return [A.D4(p=1), A.OneOf([rotate, elastic], p=0.3)]


def _nuclei() -> list[Any]:
    return [
        *_geometry(),
        A.OneOf([A.ToGray(p=1), A.ChannelShuffle(p=1), A.HueSaturationValue(20, 30, 15, p=1)], p=0.3),
        A.InvertImg(p=0.1),
        A.OneOf(
            [
                A.RandomBrightnessContrast(0.2, 0.4, p=1),
                A.RandomGamma((60, 170), p=1),
                A.CLAHE(clip_limit=(1, 3), p=1),
                A.Sharpen(alpha=(0.1, 0.4), p=1),
            ],
            p=0.5,
        ),
        A.OneOf([A.GaussianBlur((3, 5), p=1), A.GaussNoise(std_range=(0.01, 0.08), p=1)], p=0.25),
    ]


def _laboratories() -> list[Any]:
    """`_nuclei` in wider ranges, with optics, compression and noise of other laboratories."""
    return [
        *_geometry(),
        A.OneOf(
            [A.ToGray(p=0.5), A.ChannelShuffle(p=0.5), A.HueSaturationValue(30, 50, 20, p=1)],
            p=0.35,
        ),
        A.InvertImg(p=0.1),
        A.OneOf(
            [
                A.RandomBrightnessContrast(0.25, 0.5, p=0.5),
                A.RandomGamma((45, 220), p=1),
                A.CLAHE(clip_limit=(1, 3), p=0.5),
                A.Sharpen(alpha=(0.1, 0.4), p=0.5),
            ],
            p=0.6,
        ),
        A.OneOf(
            [
                A.GaussianBlur(0, (0.5, 2.5), p=1),
                A.Downscale((0.4, 0.8), {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}, p=0.5),
                A.GaussNoise(std_range=(0.01, 0.1), p=1),
                A.ImageCompression(quality_range=(35, 90), p=0.5),
            ],
            p=0.4,
        ),
    ]


def _medical() -> list[Any]:
    return [A.RandomRotate90(p=0.5), A.GaussianBlur((3, 5), p=0.3), A.RandomGamma((80, 120), p=0.5)]


PRESETS = {
    "nuclei": _nuclei,
    "laboratories": _laboratories,
    "medical": _medical,
    "none": lambda: [],
}
