"""Training targets, computed from a label map.

Touching nuclei must be separated, so the foreground is not enough. The other channels are the
touching border (a narrow zone between two nuclei, as in the competition's winning solution) and the
core, an energy that is 1 in the middle of a nucleus and falls towards its rim. Thresholded, it
gives one watershed marker per nucleus.

Letters: C channels, H height, W width.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nuclei.arrays import Float32Array, LabelMap

LARGEST_GAIN = 5.0
CENTRE_DEVIATION = 1 / 6
"""Deviation of the Gaussian at a nucleus's centre, as a fraction of its equivalent diameter."""


def energy_target(
    label_map: LabelMap, border_scale: float, border_max: float, core: str = "distance"
) -> Float32Array:
    """Foreground, touching border and core, (3, H, W) float32 in [0, 1], for three sigmoid maps.

    The core is `core_energy`, or for "centre" `centre_energy`. Source: border as in Buslaev,
    Seferbekov and Durnov, the competition's first place (2018).
    """
    border = touching_border(label_map, border_scale, border_max)
    energy = core_energy(label_map) if core == "distance" else centre_energy(label_map)
    return np.stack([label_map > 0, border, energy]).astype(np.float32)


def three_class_target(label_map: LabelMap, border_scale: float, border_max: float) -> Float32Array:
    """One-hot background, body and touching border, (3, H, W) float32, for a softmax."""
    border = touching_border(label_map, border_scale, border_max)
    body = (label_map > 0) & ~border
    return np.stack([~(body | border), body, border]).astype(np.float32)


def core_energy(label_map: LabelMap) -> Float32Array:
    """Distance to the rim of the nucleus, divided by its maximum in the nucleus: (H, W) in [0, 1].

    Background is 0, the rim's own pixels are small but above 0. The image's edge is no rim: a
    nucleus cut by it is highest at the cut. Source: Bai and Urtasun, Deep Watershed Transform
    (2017), here normalised by nucleus.
    """
    if not label_map.any():
        return np.zeros(label_map.shape, np.float32)
    # any path out of a nucleus crosses its own rim, so one distance transform serves all nuclei
    distance = cv2.distanceTransform((~rims(label_map)).astype(np.uint8), cv2.DIST_L2, 5)
    places = np.flatnonzero(label_map > 0)
    labels, heights = label_map.ravel()[places], distance.ravel()[places] + 1.0
    largest = np.ones(int(labels.max()) + 1, np.float32)
    np.maximum.at(largest, labels, heights)
    energy = np.zeros(label_map.shape, np.float32)
    energy.ravel()[places] = heights / largest[labels]
    return energy


def centre_energy(label_map: LabelMap) -> Float32Array:
    """A Gaussian at each nucleus's centre of mass, 1 at its peak, 0 outside: (H, W) in [0, 1].

    A nucleus's own pixels are above 0; its deviation grows with it (CENTRE_DEVIATION). Source:
    centre heatmaps as in Cheng et al., Panoptic-DeepLab (2020).
    """
    energy = np.zeros(label_map.shape, np.float32)
    rows, columns = np.nonzero(label_map)
    labels = label_map[rows, columns]
    areas = np.maximum(np.bincount(labels), 1)
    off_rows = rows - (np.bincount(labels, rows) / areas)[labels]
    off_columns = columns - (np.bincount(labels, columns) / areas)[labels]
    variances = CENTRE_DEVIATION**2 * 4 / np.pi * areas
    exponents = -(off_rows**2 + off_columns**2) / (2 * variances[labels])
    highest = np.full(len(areas), -np.inf)
    np.maximum.at(highest, labels, exponents)
    energy[rows, columns] = np.maximum(np.exp(exponents - highest[labels]), np.finfo(np.float32).tiny)
    return energy


def rims(label_map: LabelMap) -> npt.NDArray[np.bool_]:
    """Pixels with another label among their four neighbours (both sides of rims), (H, W) bool."""
    rim = np.zeros(label_map.shape, bool)
    rows = label_map[1:] != label_map[:-1]
    columns = label_map[:, 1:] != label_map[:, :-1]
    rim[1:] |= rows
    rim[:-1] |= rows
    rim[:, 1:] |= columns
    rim[:, :-1] |= columns
    return rim


def touching_border(label_map: LabelMap, scale: float, largest_reach: float) -> npt.NDArray[np.bool_]:
    """Pixels within reach of two nuclei, (H, W) bool.

    The reach in pixels is `scale` times the equivalent diameter of the nucleus there, at least 1
    and at most `largest_reach`: a line between small nuclei, a band between large ones.
    """
    areas = np.bincount(label_map.ravel(), minlength=1)
    areas[0] = 0
    present = np.flatnonzero(areas)
    border = np.zeros(label_map.shape, bool)
    if len(present) < 2:
        return border
    reaches = np.zeros(len(present) + 1, np.uint8)
    reaches[1:] = np.clip(
        np.round(scale * np.sqrt(4 / np.pi * areas[present])), 1, max(1, round(largest_reach))
    )
    # only the order of the numbers matters, and small types are several times faster
    number_of_label = np.zeros(len(areas), np.uint8 if len(present) < 255 else np.float32)
    number_of_label[present] = np.arange(1, len(present) + 1)
    highest: npt.NDArray[Any] = number_of_label[label_map]
    lowest = np.where(highest > 0, highest, 255 if highest.dtype == np.uint8 else np.inf).astype(highest.dtype)
    reach_map = cv2.dilate(reaches[highest.astype(np.intp)], disc(int(reaches.max())))
    for reach in np.unique(reaches[1:]).tolist():
        # two nuclei are near where the largest label around differs from the smallest
        two = cv2.dilate(highest, disc(reach)) > cv2.erode(lowest, disc(reach))
        border |= two & (reach_map == reach)
    return border


def pixel_weights(
    label_map: LabelMap, border: npt.NDArray[Any], border_weight: float, small_weight: float
) -> Float32Array:
    """Weight map of the loss, (1, H, W) float32: more on touching borders and in small nuclei.

    `border` (H, W) is 1 on the touching border, which gains `border_weight`. A nucleus gains
    `small_weight` times the mean area over its own: summed over its pixels every nucleus gains the
    same, as in the metric every nucleus counts the same. It gains at most LARGEST_GAIN times
    `small_weight`, since a crop may leave a sliver of a nucleus.

    Source: weights on borders as in Ronneberger, Fischer, Brox (2015); on small nuclei as several
    of the competition's solutions had them.
    """
    weights = np.ones(label_map.shape, np.float32)
    weights += border_weight * border.astype(np.float32)
    areas = np.bincount(label_map.ravel()).astype(np.float32)
    areas[0] = 0
    present = areas > 0
    if small_weight and present.any():
        gains = np.zeros_like(areas)
        gains[present] = np.minimum(areas[present].mean() / areas[present], LARGEST_GAIN)
        weights += small_weight * gains[label_map]
    return weights[None]


def disc(radius: int) -> npt.NDArray[np.uint8]:
    """Mask of a disc, (2 radius + 1, 2 radius + 1) uint8."""
    side = 2 * radius + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), dtype=np.uint8)
