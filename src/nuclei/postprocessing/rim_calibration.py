"""Calibration of a foreground map by the image: where the rim of a fluorescent nucleus belongs.

Networks learn how bright annotators of the sources in training drew rims, for the blur and the
resolution of those sources. On images of other sources the rim at probability one half is too far
out or too far in. Annotators of different laboratories agree on something else: they draw the rim
where brightness has fallen to about 0.42 of the way from the local background (0) to the inside of
the nucleus (1). So each image gets the threshold at which the map's rims have that brightness, and
the map is shifted in log-odds until this threshold is one half.
"""

from typing import NamedTuple

import cv2
import numpy as np

from nuclei.arrays import FOREGROUND, BoolArray, Float32Array, Int64Array, UInt8Array
from nuclei.postprocessing.label_ops import label_components
from nuclei.postprocessing.parameters import Parameters
from nuclei.postprocessing.watershed import measure_certainty

RING = (4.0, 8.0)
"""Distances from a nucleus, in pixels, between which its local background is measured."""
INSIDE = 3.0
"""Distance from the rim, in pixels, from which on brightness counts as that inside the nucleus."""
BAND = 4.0
"""Pixels up to this far from the rim, on both sides, relate brightness to probability."""
MIN_RING, MIN_INSIDE = 20, 5
"""Fewest pixels of a background ring, and of an inside, that are measured."""
MIN_CONTRAST = 3.0
"""Smallest difference of grey levels between inside and background."""
MIN_COMPONENTS = 3
"""Fewest foreground components with which an image is calibrated."""
SMOOTHING = 10.0
"""Standard deviation, in steps of 1/255, with which brightness is averaged over probabilities."""
LOWEST, HIGHEST = 0.2, 0.95
"""Bounds of the threshold, as fractions of the image's certainty."""

Lookup = UInt8Array
"""New value of each value of the foreground map, (256,) uint8."""


class _Contrast(NamedTuple):
    """Brightness around and inside each foreground component, and which have enough pixels of both."""

    background: Float32Array
    inside: Float32Array
    measured: BoolArray

    @property
    def bright(self) -> BoolArray:
        """Components clearly brighter than their background."""
        return self.measured & (self.inside - self.background > MIN_CONTRAST)


def find_lookup(maps: UInt8Array, image: UInt8Array, level: float) -> Lookup | None:
    """The calibration of the foreground of maps (3, H, W) uint8 of an RGB image (H, W, 3) uint8.

    `level` is the relative brightness at the rim: 0 that of the background, 1 that of the inside.
    None where it cannot be measured: fewer than three foreground components brighter than their
    background, or, as in stained tissue, most of them darker.
    """
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    certainty = max(measure_certainty(maps), Parameters().min_certainty)
    relative = _relative_brightness(maps[FOREGROUND], grey, 0.5 * certainty)
    if relative is None:
        return None
    threshold = _threshold_at(relative, level, certainty)
    return _shift_log_odds(0.5 * certainty, threshold)


def apply_lookup(maps: UInt8Array, lookup: Lookup) -> UInt8Array:
    """The maps (3, H, W) uint8 with new foreground values."""
    calibrated = maps.copy()
    calibrated[FOREGROUND] = lookup[maps[FOREGROUND]]
    return calibrated


def _relative_brightness(
    foreground: UInt8Array, grey: UInt8Array, threshold: float
) -> tuple[Float32Array, UInt8Array] | None:
    """Relative brightness of the pixels near rims, and their foreground values."""
    mask = (foreground >= 255 * threshold).astype(np.uint8)
    if not mask.any() or mask.all():
        return None
    # single noisy pixels would blur the relation of brightness to probability
    brightness = np.asarray(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 0.7), np.float32)
    components, outside, inside = _measure_distances(mask)
    contrast = _measure_contrast(brightness, components, outside, inside)
    bright = contrast.bright
    if bright.sum() < max(MIN_COMPONENTS, contrast.measured.sum() / 2):
        return None
    near_rim = ((outside > 0) & (outside <= BAND)) | ((inside > 0) & (inside <= BAND))
    band = near_rim & bright[components]
    of = components[band]
    height = contrast.inside[of] - contrast.background[of]
    return (brightness[band] - contrast.background[of]) / height, foreground[band]


def _measure_distances(mask: UInt8Array) -> tuple[Int64Array, Float32Array, Float32Array]:
    """Nearest component of every pixel; its distance from the foreground, and from the background."""
    _, labels = label_components(mask, np.flatnonzero(mask))
    outside, pixel = cv2.distanceTransformWithLabels(
        1 - mask, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    component_of_pixel = np.zeros(int(pixel.max()) + 1, np.int64)
    component_of_pixel[pixel[mask > 0]] = labels
    padded = np.pad(mask, 1, constant_values=1)  # the edge of the image is no rim
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
    return component_of_pixel[pixel], np.asarray(outside, np.float32), np.asarray(inside, np.float32)


def _measure_contrast(
    brightness: Float32Array, components: Int64Array, outside: Float32Array, inside: Float32Array
) -> _Contrast:
    size = int(components.max()) + 1
    in_ring = (outside >= RING[0]) & (outside <= RING[1])
    background, ring_pixels = _means(brightness, components, in_ring, size)
    interior, inside_pixels = _means(brightness, components, inside >= INSIDE, size)
    return _Contrast(background, interior, (ring_pixels >= MIN_RING) & (inside_pixels >= MIN_INSIDE))


def _means(
    brightness: Float32Array, components: Int64Array, chosen: BoolArray, size: int
) -> tuple[Float32Array, Int64Array]:
    """Mean brightness of each component's chosen pixels, and their number."""
    counts = np.bincount(components[chosen], minlength=size)
    sums = np.bincount(components[chosen], brightness[chosen], minlength=size)
    return (sums / np.maximum(counts, 1)).astype(np.float32), counts


def _threshold_at(relative: tuple[Float32Array, UInt8Array], level: float, certainty: float) -> float:
    """Probability of the pixels whose mean relative brightness is `level`, within the bounds."""
    brightness, values = relative
    counts = np.bincount(values, minlength=256).astype(float)
    sums = np.bincount(values, np.clip(brightness, -0.5, 1.5), minlength=256)
    steps = np.arange(-24, 25)
    kernel = np.exp(-0.5 * (steps / SMOOTHING) ** 2)
    means = np.convolve(sums, kernel, "same") / np.maximum(np.convolve(counts, kernel, "same"), 1e-9)
    low, high = (int(bound * certainty * 255) for bound in (LOWEST, HIGHEST))
    # brightness rises with probability; a dip is noise
    reached = np.flatnonzero(np.maximum.accumulate(means)[low:high] >= level)
    return float(low + reached[0] if reached.size else high) / 255


def _shift_log_odds(target: float, threshold: float) -> Lookup:
    """The lookup that shifts log-odds so that the probability `threshold` becomes `target`."""
    probabilities = np.clip(np.arange(256) / 255, 1 / 512, 1 - 1 / 512)
    ratio = target / (1 - target) * (1 - threshold) / threshold
    odds = ratio * probabilities / (1 - probabilities)
    return np.asarray(np.round(255 * odds / (1 + odds)), np.uint8)
