"""Calibration of a foreground map by the image: where the rim of a fluorescent nucleus belongs.

Networks learn how bright annotators of the sources in training drew rims, for the blur and the
resolution of those sources. On images of other sources the rim at probability one half is too far
out or too far in. Annotators of different laboratories agree on something else: they draw the rim
where brightness has fallen to about 0.42 of the way from the local background (0) to the inside of
the nucleus (1).

So each nucleus gets the threshold at which the foreground map has that brightness around it, and
the map near it is shifted in log-odds until this threshold is one half. The pixels around one
nucleus are few, so a fixed number of pixels with the brightness of all nuclei of the image is added
to them.
"""

from typing import NamedTuple

import cv2
import numpy as np

from nuclei.arrays import (
    FOREGROUND,
    BoolArray,
    Float32Array,
    Float64Array,
    Int64Array,
    LabelMap,
    UInt8Array,
)
from nuclei.postprocessing.parameters import NEUTRAL
from nuclei.postprocessing.watershed import measure_certainty, segment_maps

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
MIN_NUCLEI = 3
"""Fewest nuclei with which an image is calibrated."""
SMOOTHING = 10.0
"""Standard deviation, in steps of 1/255, with which brightness is averaged over probabilities."""
PRIOR = 300.0
"""Pixels of the image's mean nucleus that are added to those of each nucleus."""
LOWEST, HIGHEST = 0.2, 0.95
"""Bounds of the threshold, as fractions of the image's certainty."""


class RimBrightness(NamedTuple):
    """Relative brightness near rims by foreground value: 0 is background, 1 inside.

    Of each nucleus, (N, 256), or of the mean nucleus of an image, (256,).
    """

    pixels: Float32Array
    """Number of pixels with each foreground value, smoothed over the values."""
    total: Float32Array
    """Sum of their relative brightness."""


class RimPrior(NamedTuple):
    """What the nuclei of an image have in common."""

    brightness: RimBrightness
    """Of its mean nucleus with `PRIOR` pixels, (256,)."""
    certainty: float
    """`watershed.measure_certainty`, at least `Parameters.min_certainty`."""


class _Rims(NamedTuple):
    """What an image's nuclei show of their rims."""

    nearest: Int64Array
    """Nearest nucleus of every pixel, from 1 on (H, W); 0 without nuclei."""
    brightness: RimBrightness
    """(N + 1, 256); all 0 for nuclei that are not clearly brighter than their background."""
    enough: bool
    """Whether there are `MIN_NUCLEI` such nuclei, and no more of others, as in stained tissue."""


class _Contrast(NamedTuple):
    """Brightness around and inside each nucleus, and which have enough pixels of both."""

    background: Float32Array
    inside: Float32Array
    measured: BoolArray

    @property
    def bright(self) -> BoolArray:
        """Nuclei clearly brighter than their background."""
        return self.measured & (self.inside - self.background > MIN_CONTRAST)


def calibrate_rims(
    maps: UInt8Array, image: UInt8Array, level: float, prior: RimPrior | None = None
) -> UInt8Array:
    """Maps (3, H, W) uint8 of an RGB image (H, W, 3) uint8, with a calibrated foreground.

    `level` is the relative brightness at rims: 0 that of the background, 1 that of the inside.
    `prior` is that of the whole image where this is a part of it. Without it the maps are returned
    as they are where there is none: see `measure_prior`.
    """
    rims = _find_rims(maps, image)
    prior = prior or _pool(rims, maps)
    if prior is None:
        return maps
    thresholds = _find_thresholds(rims.brightness, prior, level)
    lookups = _shift_log_odds(0.5 * prior.certainty, thresholds)
    calibrated = maps.copy()
    calibrated[FOREGROUND] = lookups[rims.nearest, maps[FOREGROUND]]
    return calibrated


def measure_prior(maps: UInt8Array, image: UInt8Array) -> RimPrior | None:
    """What the nuclei have in common; None with fewer than three that are clearly brighter than
    their background, or, as in stained tissue, more that are not.
    """
    return _pool(_find_rims(maps, image), maps)


def _pool(rims: _Rims, maps: UInt8Array) -> RimPrior | None:
    if not rims.enough:
        return None
    pixels, total = (part.sum(axis=0) for part in rims.brightness)
    weight = PRIOR / pixels.sum()
    certainty = max(measure_certainty(maps), NEUTRAL.min_certainty)
    return RimPrior(RimBrightness(pixels * weight, total * weight), certainty)


def _find_rims(maps: UInt8Array, image: UInt8Array) -> _Rims:
    nuclei = segment_maps(maps, NEUTRAL)
    mask = (nuclei > 0).astype(np.uint8)
    if not mask.any() or mask.all():  # no rims: all thresholds are those of the prior
        nothing = np.zeros((1, 256), np.float32)
        return _Rims(np.zeros(mask.shape, np.int64), RimBrightness(nothing, nothing), enough=False)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    # single noisy pixels would blur the relation of brightness to probability
    brightness = np.asarray(cv2.GaussianBlur(grey, (0, 0), 0.7), np.float32)
    nearest, outside, inside = _measure_distances(nuclei, mask)
    contrast = _measure_contrast(brightness, nearest, outside, inside)
    bright = contrast.bright
    near_rim = ((outside > 0) & (outside <= BAND)) | ((inside > 0) & (inside <= BAND))
    band = near_rim & bright[nearest]
    nucleus = nearest[band]
    height = contrast.inside - contrast.background
    relative = (brightness[band] - contrast.background[nucleus]) / height[nucleus]
    found = _collect(nucleus, maps[FOREGROUND][band], relative, len(bright))
    enough = bright.sum() >= max(MIN_NUCLEI, contrast.measured.sum() / 2)
    return _Rims(nearest, found, bool(enough))


def _measure_distances(nuclei: LabelMap, mask: UInt8Array) -> tuple[Int64Array, Float32Array, Float32Array]:
    """Nearest nucleus of every pixel; its distance from all nuclei, and from the background."""
    outside, pixel = cv2.distanceTransformWithLabels(
        1 - mask, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nucleus_of_pixel = np.zeros(int(pixel.max()) + 1, np.int64)
    nucleus_of_pixel[pixel[mask > 0]] = nuclei[mask > 0]
    padded = np.pad(mask, 1, constant_values=1)  # the edge of the image is no rim
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
    return nucleus_of_pixel[pixel], np.asarray(outside, np.float32), np.asarray(inside, np.float32)


def _measure_contrast(
    brightness: Float32Array, nearest: Int64Array, outside: Float32Array, inside: Float32Array
) -> _Contrast:
    size = int(nearest.max()) + 1
    in_ring = (outside >= RING[0]) & (outside <= RING[1])
    background, ring_pixels = _means(brightness, nearest, in_ring, size)
    interior, inside_pixels = _means(brightness, nearest, inside >= INSIDE, size)
    return _Contrast(background, interior, (ring_pixels >= MIN_RING) & (inside_pixels >= MIN_INSIDE))


def _means(
    brightness: Float32Array, nearest: Int64Array, chosen: BoolArray, size: int
) -> tuple[Float32Array, Int64Array]:
    """Mean brightness of each nucleus's chosen pixels, and their number."""
    counts = np.bincount(nearest[chosen], minlength=size)
    sums = np.bincount(nearest[chosen], brightness[chosen], minlength=size)
    return (sums / np.maximum(counts, 1)).astype(np.float32), counts


def _collect(nucleus: Int64Array, values: UInt8Array, relative: Float32Array, size: int) -> RimBrightness:
    """Relative brightness of pixels by their nucleus, one of `size`, and their foreground value."""
    cell = nucleus * 256 + values
    counted = np.bincount(cell, minlength=size * 256)
    summed = np.bincount(cell, np.clip(relative, -0.5, 1.5), minlength=size * 256)
    return RimBrightness(_smooth(counted.reshape(size, 256)), _smooth(summed.reshape(size, 256)))


def _smooth(by_value: Int64Array | Float64Array) -> Float32Array:
    """Each row (N, 256) smoothed over the foreground values."""
    rows = by_value.astype(np.float32)
    smoothed = cv2.GaussianBlur(rows, (49, 1), SMOOTHING, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(smoothed, np.float32)


def _find_thresholds(brightness: RimBrightness, prior: RimPrior, level: float) -> Float32Array:
    """Probability, within the bounds, at which brightness around each nucleus is `level`, (N,)."""
    pixels, total = (own + common for own, common in zip(brightness, prior.brightness, strict=True))
    low, high = (int(bound * prior.certainty * 255) for bound in (LOWEST, HIGHEST))
    # brightness rises with probability; a dip is noise
    rising = np.maximum.accumulate(total / np.maximum(pixels, 1e-6), axis=1)
    reached = rising[:, low:high] >= level
    values = np.where(reached.any(axis=1), low + reached.argmax(axis=1), high)
    return (values / 255).astype(np.float32)


def _shift_log_odds(target: float, thresholds: Float32Array) -> UInt8Array:
    """New value of each foreground value for each threshold, (N, 256).

    Log-odds are shifted so that the threshold becomes `target`.
    """
    probabilities = np.clip(np.arange(256, dtype=np.float32) / 255, 1 / 512, 1 - 1 / 512)
    ratios = target / (1 - target) * (1 - thresholds) / thresholds
    odds = ratios[:, None] * (probabilities / (1 - probabilities))
    return np.asarray(np.round(255 * odds / (1 + odds)), np.uint8)
