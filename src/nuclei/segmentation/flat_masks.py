"""The masks of many nuclei in one flat array, so that NumPy works on all of them at once.

Each mask gets a frame of one background pixel and is laid out row by row, one mask after the other.
Then the neighbours of a pixel are at its index plus or minus 1, and plus or minus the width of its
mask with the frame.

Letters: N masks, P pixels inside of them, F all pixels with the frames.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nuclei.arrays import BoolArray, Int64Array


class FlatMasks(NamedTuple):
    """`inside` (F,) are the masks; `indices` (P,) their pixels, mask by mask in row-major order.

    `owners` (P,) is the number of each pixel's mask; `strides` and `offsets` (N,) are the width of a
    mask with its frame and the index where it begins.
    """

    inside: BoolArray
    indices: Int64Array
    owners: Int64Array
    strides: Int64Array
    offsets: Int64Array

    @property
    def steps(self) -> Int64Array:
        """How far the pixel below is, (P,)."""
        return self.strides[self.owners]

    def locate(self, indices: Int64Array, owners: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Rows and columns in the masks without their frames."""
        rows, columns = np.divmod(indices - self.offsets[owners], self.strides[owners])
        return rows - 1, columns - 1


def flatten_masks(masks: Sequence[BoolArray]) -> FlatMasks:
    shapes = np.array([mask.shape for mask in masks], np.int64).reshape(-1, 2) + 2
    sizes = shapes.prod(axis=1)
    ends = sizes.cumsum()
    inside = np.zeros(int(sizes.sum()), bool)
    for mask, (height, width), end in zip(masks, shapes.tolist(), ends.tolist(), strict=True):
        inside[end - height * width : end].reshape(height, width)[1:-1, 1:-1] = mask
    indices = np.flatnonzero(inside)
    owners = np.searchsorted(ends, indices, side="right")
    return FlatMasks(inside, indices, owners, shapes[:, 1], ends - sizes)
