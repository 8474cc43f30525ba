"""Near-duplicate images, found by content, whatever their name and brightness."""

from collections.abc import Mapping

import cv2
import numpy as np

from nuclei.arrays import Float32Array, Pixels

SIDE = 32
"""Side of a thumbnail in pixels."""
MIN_CORRELATION = 0.95
"""Correlation of thumbnails from which two images show the same picture. Copies in 16 bits have
more, other images of the public sets 0.62 at most with an image of the competition."""


def thumbnail(image: Pixels) -> Float32Array:
    """Grey thumbnail (SIDE * SIDE,) of an image (H, W, 3), mean 0 and norm 1; 0 for a flat image.

    Brightness and contrast do not change it, so that 8 and 16 bits of one picture are equal.
    """
    grey = cv2.resize(image.mean(axis=2, dtype=np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    values = np.asarray(grey.ravel() - grey.mean(), np.float32)
    norm = float(np.linalg.norm(values))
    return values / norm if norm > 1e-6 else values * 0


def find_duplicates(images: Mapping[str, Float32Array], known: Mapping[str, Float32Array]) -> dict[str, str]:
    """Known image of which each image is a near-duplicate, by id; both arguments are thumbnails.

    A crop, a turned image or one tile of a larger picture is not found.
    """
    if not images or not known:
        return {}
    names = list(known)
    correlations = np.stack(list(images.values())) @ np.stack([known[name] for name in names]).T
    best = correlations.argmax(axis=1)
    return {
        image_id: names[column]
        for image_id, column, row in zip(images, best.tolist(), correlations, strict=True)
        if row[column] >= MIN_CORRELATION
    }
