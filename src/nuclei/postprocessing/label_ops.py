"""Operations on label maps and connected components."""

import cv2
import numpy as np
import numpy.typing as npt

from nuclei.arrays import BoolArray, LabelMap, Labels, UInt8Array

PixelIndices = npt.NDArray[np.intp]
"""Ascending indices of pixels in the raveled image."""

# Diagonal neighbours do not connect: nuclei that touch at a corner are two.
_CONNECTIVITY = 4
_ROWS = 1024


def mean_diameter(label_map: LabelMap) -> float:
    """Equivalent diameter of the nuclei in pixels, averaged by area; 0 without nuclei.

    By area, since fragments of large nuclei and specks would pull a plain mean down.
    """
    areas = np.bincount(label_map.ravel())[1:]
    diameters = np.sqrt(4 / np.pi * areas)
    return float(np.average(diameters, weights=areas)) if areas.any() else 0.0


def fill_holes(label_map: LabelMap) -> LabelMap:
    """Fills, in place, each hole inside a single nucleus; gaps among several stay background."""
    # A frame of background, so that one flood fill reaches all background that is no hole.
    background = (label_map == 0).astype(np.uint8)
    padded = cv2.copyMakeBorder(background, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(padded, None, (0, 0), 0, flags=_CONNECTIVITY)
    holes = np.ascontiguousarray(padded[1:-1, 1:-1])
    indices = np.flatnonzero(holes.view(bool))
    if not len(indices):
        return label_map
    count, hole_of_pixel = label_components(holes, indices)
    pixels = label_map.ravel()
    enclosing = _find_enclosing_label(pixels, label_map.shape[1], indices, hole_of_pixel, count)
    pixels[indices] = enclosing[hole_of_pixel]
    return label_map


def _find_enclosing_label(
    pixels: Labels, width: int, indices: PixelIndices, hole_of_pixel: Labels, count: int
) -> npt.NDArray[np.int32]:
    """The one label around each of `count` holes; 0 for a hole with several labels around it."""
    largest = np.zeros(count, np.int32)
    smallest = np.full(count, np.iinfo(np.int32).max, np.int32)
    # A hole does not touch the image's edges, so each of its pixels has four neighbours.
    for step in (-width, -1, 1, width):
        neighbours = pixels[indices + step]
        is_nucleus = neighbours > 0
        np.maximum.at(largest, hole_of_pixel[is_nucleus], neighbours[is_nucleus])
        np.minimum.at(smallest, hole_of_pixel[is_nucleus], neighbours[is_nucleus])
    return np.where(largest == smallest, largest, 0)


def label_components(mask: UInt8Array, indices: PixelIndices) -> tuple[int, Labels]:
    """Number of connected components including background, and the component of each index."""
    count, components = cv2.connectedComponents(mask, connectivity=_CONNECTIVITY)
    return count, components.ravel()[indices]


def renumber(keep: BoolArray) -> Labels:
    """New number of each label: kept ones count from 1, others and background become 0."""
    numbers = np.cumsum(keep[1:], dtype=np.int32)
    return np.concatenate([np.zeros(1, np.int32), np.where(keep[1:], numbers, 0)])


def count_areas(label_map: Labels) -> npt.NDArray[np.int64]:
    """Pixels of each label from 0 on, 0 for the background; the label map may lie on a disk."""
    areas = np.zeros(1, np.int64)
    for top in range(0, len(label_map), _ROWS):
        found = np.bincount(np.asarray(label_map[top : top + _ROWS]).ravel(), minlength=len(areas))
        found[: len(areas)] += areas
        areas = found
    areas[0] = 0
    return areas


def keep_labels(label_map: LabelMap, keep: BoolArray) -> int:
    """Renumbers the labels to keep from 1 on, in place and in order; returns how many there are."""
    numbers = renumber(keep)
    for top in range(0, len(label_map), _ROWS):
        label_map[top : top + _ROWS] = numbers[label_map[top : top + _ROWS]]
    return int(numbers.max(initial=0))
