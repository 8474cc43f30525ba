"""Connected pieces of a mask, and label maps that they make."""

import cv2
import numpy as np
import numpy.typing as npt

from nuclei.arrays import LabelMap, Labels, UInt8Array

Places = npt.NDArray[np.intp]
"""Positions of pixels in the raveled image, ascending."""


# Diagonal neighbours do not connect: nuclei that touch at a corner are two.
_CONNECTIVITY = 4


def mean_diameter(label_map: LabelMap) -> float:
    """Diameter in pixels of a disc of each nucleus's area, averaged by area; 0 where there is no nucleus.

    By area, since large nuclei that fell into pieces, or specks beside them, would pull a plain mean down.
    """
    areas = np.bincount(label_map.ravel())[1:]
    return float(np.average(np.sqrt(4 / np.pi * areas), weights=areas)) if areas.any() else 0.0


def fill_holes(label_map: LabelMap) -> LabelMap:
    """The label map with the background that one nucleus alone encloses; what several enclose stays background."""
    # around the image lies background, so that one filling reaches all that is no hole
    padded = cv2.copyMakeBorder((label_map == 0).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(padded, None, (0, 0), 0, flags=_CONNECTIVITY)
    holes = np.ascontiguousarray(padded[1:-1, 1:-1])
    places = np.flatnonzero(holes.view(bool))
    if not len(places):
        return label_map
    count, gaps = label_islands(holes, places)
    above, below = np.zeros(count, np.int32), np.full(count, np.iinfo(np.int32).max, np.int32)
    pixels, width = label_map.ravel(), label_map.shape[1]
    for step in (-width, -1, 1, width):  # a hole keeps away from the edges, so each of its pixels has four neighbours
        beside = pixels[places + step]
        is_rim = beside > 0
        np.maximum.at(above, gaps[is_rim], beside[is_rim])
        np.minimum.at(below, gaps[is_rim], beside[is_rim])
    pixels[places] = np.where(above == below, above, 0)[gaps]
    return label_map


def label_islands(mask: UInt8Array, places: Places) -> tuple[int, Labels]:
    """Number of the mask's connected pieces with the background, and the piece (0 is none) of each of the places."""
    count, pieces = cv2.connectedComponents(mask, connectivity=_CONNECTIVITY)
    return count, pieces.ravel()[places]


def renumber(keep: npt.NDArray[np.bool_]) -> Labels:
    """New number of each label: those to keep from 1 in their order, 0 for the others and for background."""
    numbers = np.cumsum(keep[1:], dtype=np.int32)
    return np.concatenate([np.zeros(1, np.int32), np.where(keep[1:], numbers, 0)])
