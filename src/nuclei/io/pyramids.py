"""Pyramids in TIFF files: which of its pages are reduced copies of others."""

from typing import Any

import numpy as np

from nuclei.arrays import Float64Array

_SAME_PICTURE = 0.8
"""Correlation from which on a page is a reduced copy of a larger one."""
_SIDE = 64
_LARGEST = 2**26
"""Pixels beyond which an unmarked level is believed by its size: nobody keeps two such images in
one file."""


def split_levels(file: Any) -> list[Any]:
    """The series of an open TIFF in their order, those taken for pyramid levels by size alone made series again.

    Levels are marked as reduced, or lie in a SubIFD; of others the pixels decide.
    """
    found = []
    for series in file.series:
        found.append(series)
        if series.kind != "generic":
            continue
        for level in list(series.levels[1:]):
            if not _is_level(series.levels[0], level):
                series.levels.remove(level)
                found.append(level)
    return found


def _is_level(full: Any, level: Any) -> bool:
    if level.keyframe.is_reduced or level.keyframe.is_subifd:
        return True
    if len(full.pages) != len(level.pages):
        return False
    if full.keyframe.size > _LARGEST:
        return True
    first, second = (_shrink(one.pages[0]) for one in (full, level))
    if first.shape != second.shape or not first.std() or not second.std():
        return first.shape == second.shape
    return bool(np.corrcoef(first.ravel(), second.ravel())[0, 1] >= _SAME_PICTURE)


def _shrink(page: Any) -> Float64Array:
    """The page as (64, 64), the mean over its samples, each value the mean over an area."""
    import cv2

    pixels = page.asarray().reshape(page.shape).astype(np.float64)
    for axis in reversed(range(pixels.ndim)):
        if page.axes[axis] not in "YX":
            pixels = pixels.mean(axis=axis)
    return np.asarray(cv2.resize(np.nan_to_num(pixels), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA))
