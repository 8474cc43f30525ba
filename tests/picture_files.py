"""What tests of reading pictures share: a plane with a pattern, and what a file is read as."""

from pathlib import Path

import numpy as np

from nuclei.io.microscopy import read_pictures
from nuclei.io.picture import Reading

GREY = (np.arange(60 * 80).reshape(60, 80) % 251).astype(np.uint8)
RGB = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)


def read(path, channel=None, **options):
    return list(read_pictures(Path(path), Path(path).stem, Reading(channel, **options)))


def read_one(path, channel=None, **options):
    (picture,) = read(path, channel, **options)
    return picture


def notes(picture):
    return "; ".join(picture.notes)


def planes(*shape):
    """Planes of 60 x 80 pixels, each with a value of its own in its corner."""
    stack = np.tile(GREY, (*shape, 1, 1))
    stack[..., 0, 0] = np.arange(np.prod(shape)).reshape(shape)
    return stack
