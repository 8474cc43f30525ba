"""Image sources: the series of images (laboratory, microscope, stain) that an image comes from.

A network is less accurate on sources that training never saw, so the source, not the image, is the
unit of held-out scores and their errors. The competition does not publish it. Here it is found from
the image alone: modality, size, and for images of one size the background, its noise and its tint,
at which the archive's images fall into separate groups. A table can correct what is found.
"""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from nuclei.arrays import UInt8Array
from nuclei.errors import UserError
from nuclei.io.tables import read_table

COLUMNS = ("image_id", "source")
RAISED_BACKGROUND = 6.0
"""Grey level of the background (5th percentile) from which it is raised; archive: <= 4, or >= 9."""
SMOOTH_NOISE = 0.37
"""Noise of the background in grey levels, below which an image is smooth; archive: <= 0.25, or >=
0.49."""
LILAC_TINT = 22.0
"""Excess of blue over red from which tissue has a lilac background; archive: most of it <= 16, or
>= 25."""
SECOND_DIFFERENCE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
GAIN_OF_SECOND_DIFFERENCE = 6.0
"""Standard deviation of the filtered noise over that of the noise."""


def find_source(image: UInt8Array, modality: str) -> str:
    """Source of an RGB image (H, W, 3), such as `small_fluorescence_256x256_smooth`.

    The size is named with the shorter side first, so that a rotated image has the same source.
    """
    shorter, longer = sorted(image.shape[:2])
    return f"{modality}_{shorter}x{longer}_{_look(image, modality)}"


def _look(image: UInt8Array, modality: str) -> str:
    if modality.endswith("tissue"):
        red, _, blue = image.reshape(-1, 3).mean(axis=0)
        return "lilac" if blue - red >= LILAC_TINT else "plain"
    grey = image.mean(axis=2, dtype=np.float32)
    if np.percentile(grey, 5) >= RAISED_BACKGROUND:
        return "raised"
    return "smooth" if background_noise(grey) < SMOOTH_NOISE else "dark"


def background_noise(grey: np.ndarray) -> float:
    """Standard deviation of the noise in the darker third of an image (H, W), in grey levels.

    Source: Immerkaer, Fast Noise Variance Estimation (1996), here with the median as a robust mean.
    """
    filtered = np.abs(cv2.filter2D(grey.astype(np.float32), -1, SECOND_DIFFERENCE))
    blurred = cv2.blur(grey.astype(np.float32), (9, 9))
    background = blurred <= np.percentile(blurred, 30)
    return float(np.median(filtered[background]) * 1.4826 / GAIN_OF_SECOND_DIFFERENCE)


def assign_sources(index: pd.DataFrame, corrections: Mapping[str, str] | None = None) -> pd.Series:
    """Source of each image of an index with columns `image_id`, `group` and `source` (as found).

    The images of a group, which are tiles of one picture, get the most frequent source among them.
    An image that `corrections` names gets that source instead.
    """
    by_group = index.groupby("group").source.agg(lambda found: found.mode().iloc[0])
    corrected = index.image_id.map(dict(corrections or {}))
    return corrected.fillna(index.group.map(by_group))


def read_corrections(path: Path) -> dict[str, str]:
    """Source by image id of a CSV with columns image_id and source.

    Raises:
        UserError: no such file; columns are missing; an image is named twice.
    """
    table = read_table(path, COLUMNS, "restore it from git, or give a table with these columns")
    twice = table.image_id[table.image_id.duplicated()]
    if len(twice):
        raise UserError(f"{path}: image {twice.iloc[0]} is named twice; keep one of the lines")
    return dict(zip(table.image_id, table.source, strict=True))
