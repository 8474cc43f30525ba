"""Appearance augmentation: how nuclei look in images of other laboratories.

Faint nuclei beside bright ones, crowded nuclei, light out of focus, other exposures and stains.
Images are RGB (H, W, 3) uint8, label maps (H, W) int32.
"""

import cv2
import numpy as np

from nuclei.arrays import Float32Array, Float64Array, LabelMap, Pixels, UInt8Array

DARK = 90
"""Median grey level below which a crop is fluorescence: dark, with bright nuclei."""
COLOURED = 8.0
"""Mean difference of a pixel's largest and smallest channel from which a bright crop is stained
tissue."""
MIN_CONTRAST = 10.0
"""Grey levels by which a dimmed nucleus still differs from its background, so that it is
visible."""
STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]], np.float32)
"""Optical density of haematoxylin, eosin and diaminobenzidine in red, green and blue. Source:
Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution (2001)."""


def is_fluorescence(image: UInt8Array) -> bool:
    return bool(np.median(image) < DARK)


def is_stained(image: UInt8Array) -> bool:
    return not is_fluorescence(image) and float((image.max(axis=2) - image.min(axis=2)).mean()) >= COLOURED


def dim_nuclei(
    image: UInt8Array,
    label_map: LabelMap,
    factors: tuple[float, float],
    generator: np.random.Generator,
) -> UInt8Array:
    """Reduces the contrast of 15 to 60% of the nuclei, each by its own factor.

    A factor, drawn log-uniformly from `factors`, multiplies the difference from the background
    around the nucleus.
    """
    labels = np.unique(label_map)[1:]
    if not len(labels):
        return image
    background = local_background(image, label_map)
    difference = image.astype(np.float32) - background
    factor = np.ones(int(label_map.max()) + 1, np.float32)
    chosen = labels[generator.random(len(labels)) < generator.uniform(0.15, 0.6)]
    contrast = _mean_by_label(np.abs(difference).max(axis=2), label_map)[chosen]
    lowest, highest = np.log(factors)
    drawn = np.exp(generator.uniform(lowest, highest, len(chosen)))
    factor[chosen] = np.minimum(1, np.maximum(drawn, MIN_CONTRAST / np.maximum(contrast, 1)))
    factor_map: Pixels = factor[label_map]
    # glow around a nucleus, outside its annotation, fades with it
    factor_map = np.where(label_map > 0, factor_map, cv2.erode(factor_map, np.ones((7, 7), np.uint8)))
    factor_map = cv2.GaussianBlur(factor_map, (0, 0), 1.0)[..., None]
    return np.clip(np.rint(background + factor_map * difference), 0, 255).astype(np.uint8)


def crowd_nuclei(
    image: UInt8Array, label_map: LabelMap, generator: np.random.Generator
) -> tuple[UInt8Array, LabelMap]:
    """Adds nuclei of the rotated crop (square) between, and partly behind, its own nuclei.

    A nucleus is added if nuclei of the crop cover at most a third of it. Where both are, the
    brighter pixel counts.
    """
    turns = int(generator.integers(1, 4))
    layer = np.ascontiguousarray(np.rot90(image, turns))
    labels = np.ascontiguousarray(np.rot90(label_map, turns))
    areas = np.bincount(labels.ravel())
    covered = np.bincount(labels[label_map > 0], minlength=len(areas))
    taken = (covered <= areas / 3) & (generator.random(len(areas)) < generator.uniform(0.4, 1.0))
    taken[0] = False
    mask = taken[labels]
    glow = cv2.GaussianBlur(cv2.dilate(mask.astype(np.float32), np.ones((5, 5), np.uint8)), (0, 0), 1.5)[
        ..., None
    ]
    background = local_background(layer, labels)
    added = (
        image.astype(np.float32) * (1 - glow)
        + np.maximum(image, layer + (background - layer) * (1 - glow)) * glow
    )
    following = int(label_map.max()) + 1
    merged = np.where((label_map == 0) & mask, labels + following, label_map)
    return np.clip(np.rint(added), 0, 255).astype(np.uint8), merged.astype(np.int32)


def add_haze(image: UInt8Array, generator: np.random.Generator) -> UInt8Array:
    """Out-of-focus light of thick tissue: adds the rotated and blurred crop to itself."""
    blurred = cv2.GaussianBlur(np.rot90(image, int(generator.integers(1, 4))), (0, 0), generator.uniform(3, 12))
    strength = generator.uniform(0.2, 0.7)
    hazy = image.astype(np.float32) + strength * blurred
    return np.clip(np.rint(hazy * min(1.0, 255 / max(1.0, float(hazy.max())))), 0, 255).astype(np.uint8)


def local_background(image: UInt8Array, label_map: LabelMap, side: int = 49) -> Float32Array:
    """Local mean of the background in squares of `side` pixels, (H, W, 3) float32."""
    outside = (label_map == 0).astype(np.float32)
    if not outside.any():
        return np.full(image.shape, np.percentile(image, 5), np.float32)
    whole = cv2.mean(image, outside.astype(np.uint8))[:3]
    weight = cv2.blur(outside, (side, side))[..., None] + 1e-3
    total = cv2.blur(image.astype(np.float32) * outside[..., None], (side, side)) + 1e-3 * np.array(
        whole, np.float32
    )
    return np.asarray(total / weight, np.float32)


def jitter_exposure(image: UInt8Array, generator: np.random.Generator) -> UInt8Array:
    """Changes the black level of a fluorescence image, and its contrast by a factor of 0.25 to 1.6.

    One bright speck does the first to an image's intensity window, an overexposed camera the
    second.
    """
    gain = np.exp(generator.uniform(np.log(0.25), np.log(1.6)))
    levels = np.arange(256) * gain + generator.uniform(0, 20)
    return np.asarray(cv2.LUT(image, np.clip(np.rint(levels), 0, 255).astype(np.uint8)))


def jitter_stains(image: UInt8Array, generator: np.random.Generator) -> UInt8Array:
    """Changes the amount of each stain in tissue.

    Source: Tellez et al., Whole-slide mitosis detection (2018).
    """
    density = -np.log((image.reshape(-1, 3).astype(np.float32) + 1) / 256)
    amounts = density @ np.linalg.inv(STAINS)
    amounts = amounts * generator.uniform(0.6, 1.5, 3) + generator.uniform(-0.06, 0.06, 3)
    changed = 256 * np.exp(-(amounts.astype(np.float32) @ STAINS)) - 1
    rounded: UInt8Array = np.clip(np.rint(changed), 0, 255).astype(np.uint8)
    return rounded.reshape(image.shape)


def stain_to_fluorescence(image: UInt8Array, generator: np.random.Generator) -> UInt8Array:
    """Renders stained tissue as fluorescence: bright nuclei, dark background, 3 equal channels.

    Haematoxylin and a fluorescent dye both mark DNA, so its optical density in red, which eosin
    hardly absorbs, looks like crowded nuclei of a thick section. Black level, brightest value and
    gamma are random.
    """
    red = cv2.GaussianBlur(image[..., 0].astype(np.float32), (0, 0), generator.uniform(0.4, 1.2))
    density = -np.log((red + 1) / 256)
    low, high = np.percentile(density, (generator.uniform(1, 30), 99.8))
    amount = np.clip((density - low) / max(float(high - low), 0.1), 0, 1) ** generator.uniform(0.8, 2.0)
    black, white = generator.uniform(0, 25), generator.uniform(60, 255)
    grey = np.rint(black + amount * (white - black)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _mean_by_label(values: Float32Array, label_map: LabelMap) -> Float64Array:
    """Mean of the values (H, W) in each label, (largest label + 1,)."""
    areas = np.bincount(label_map.ravel())
    return np.bincount(label_map.ravel(), values.ravel()) / np.maximum(areas, 1)
