"""Classical baseline: Otsu's threshold, then a watershed on the distance transform.

It is the lowest row of the leaderboard, which every trained network should beat.
"""

import cv2
import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from nuclei.arrays import LabelMap, Mask, UInt8Array
from nuclei.errors import UserError

MIN_AREA = 30
"""Smaller objects, in pixels, are noise."""
BRIGHT_BACKGROUND = 127
"""If the median grey level is above this, nuclei are dark on a bright background."""


def otsu_watershed(image: UInt8Array) -> LabelMap:
    """Label map (H, W) int32 of an RGB image (H, W, 3) uint8; all 0 if the image is constant.

    Foreground is brighter than Otsu's threshold (darker, on a bright background), holes filled.
    Each local maximum of the distance transform is a watershed marker; markers are at least a
    typical nucleus's radius apart.

    Raises:
        UserError: the image is not an (H, W, 3) uint8 array.

    Source: Otsu, A Threshold Selection Method from Gray-Level Histograms, IEEE Trans. SMC 9 (1979);
    Meyer, Topographic distance and watershed lines, Signal Processing 38 (1994).
    """
    brightness = nuclear_brightness(image)
    if brightness.min() == brightness.max():
        return np.zeros(brightness.shape, np.int32)
    foreground = ndimage.binary_fill_holes(brightness > threshold_otsu(brightness))
    return _remove_small(split_touching(foreground), MIN_AREA)


def nuclear_brightness(image: UInt8Array) -> UInt8Array:
    """Grey image (H, W) uint8 of an RGB image (H, W, 3) uint8, with nuclei bright on dark.

    Raises:
        UserError: the image is not an (H, W, 3) uint8 array.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UserError(
            f"got an image of shape {image.shape} and type {image.dtype}, expected (H, W, 3) "
            "uint8; read it with nuclei.io.images.read_image"
        )
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    return 255 - grey if np.median(grey) > BRIGHT_BACKGROUND else grey


def split_touching(foreground: Mask) -> LabelMap:
    """Label map of a foreground mask (H, W); a distance transform splits touching nuclei."""
    distance = cv2.distanceTransform(foreground.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    distance = cv2.GaussianBlur(distance, (0, 0), 1.0)
    components, count = ndimage.label(foreground)
    depths = ndimage.maximum(distance, components, np.arange(1, count + 1))
    depths = depths[depths > 2]
    typical_radius = float(np.median(depths)) if depths.size else 3.0
    peaks = peak_local_max(
        distance,
        min_distance=max(2, round(typical_radius)),
        labels=components,
        exclude_border=False,
    )
    markers = np.zeros(foreground.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-distance, markers, mask=foreground), dtype=np.int32)


def _remove_small(label_map: LabelMap, min_area: int) -> LabelMap:
    """Label map without nuclei under `min_area` pixels, the others numbered 1..N."""
    kept = np.bincount(label_map.ravel()) >= min_area
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0)[label_map].astype(np.int32)
