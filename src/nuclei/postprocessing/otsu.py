"""Segmentation without learning: Otsu's threshold, then a watershed on the distance transform.

It is the floor of the leaderboard: what a trained model must leave behind.
"""

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from nuclei.errors import UserError

MIN_AREA = 30
"""Smaller objects, in pixels, are taken for noise."""
BRIGHT_BACKGROUND = 127
"""Grey level of the median pixel above which nuclei are taken to be dark on bright."""


def otsu_watershed(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Label map (H, W) int32 of an RGB image (H, W, 3) uint8; all 0 where the image is constant.

    Foreground is what is brighter than Otsu's threshold (darker, on a bright background), holes filled.
    Each peak of the distance to the background is one nucleus; two peaks within a typical nucleus's radius are one.

    Raises:
        UserError: the image is no (H, W, 3) uint8 array.

    Source: Otsu, A Threshold Selection Method from Gray-Level Histograms, IEEE Trans. SMC 9 (1979), and Meyer,
    Topographic distance and watershed lines, Signal Processing 38 (1994).
    """
    brightness = nuclear_brightness(image)
    if brightness.min() == brightness.max():
        return np.zeros(brightness.shape, np.int32)
    foreground = ndimage.binary_fill_holes(brightness > threshold_otsu(brightness))
    return _drop_small(split_touching(foreground), MIN_AREA)


def nuclear_brightness(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Grey image (H, W) uint8 in which nuclei are brighter than what surrounds them, of an RGB image (H, W, 3) uint8.

    Raises:
        UserError: the image is no (H, W, 3) uint8 array.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UserError(
            f"got an image of shape {image.shape} and type {image.dtype}, expected (H, W, 3) uint8; "
            "read it with nuclei.artifacts.read_image"
        )
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    return 255 - grey if np.median(grey) > BRIGHT_BACKGROUND else grey


def split_touching(foreground: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Label map of a foreground (H, W), touching nuclei parted where the distance to the background has a saddle."""
    distance = cv2.distanceTransform(foreground.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    distance = cv2.GaussianBlur(distance, (0, 0), 1.0)
    pieces, count = ndimage.label(foreground)
    depths = ndimage.maximum(distance, pieces, np.arange(1, count + 1))
    depths = depths[depths > 2]
    typical_radius = float(np.median(depths)) if depths.size else 3.0
    peaks = peak_local_max(distance, min_distance=max(2, round(typical_radius)), labels=pieces, exclude_border=False)
    seeds = np.zeros(foreground.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-distance, seeds, mask=foreground), dtype=np.int32)


def _drop_small(label_map: npt.NDArray[np.int32], min_area: int) -> npt.NDArray[np.int32]:
    """Label map without nuclei under `min_area` pixels, the others numbered 1..N."""
    kept = np.bincount(label_map.ravel()) >= min_area
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0)[label_map].astype(np.int32)
