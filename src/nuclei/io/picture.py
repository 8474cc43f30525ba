"""Planes of image files, as all readers of people's own images give them, and the choice of a channel."""

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nuclei.arrays import Pixels
from nuclei.errors import UserError

MAX_PIXELS = 150_000_000
"""Planes with more pixels are refused by their header unless more are allowed."""
IN_MEMORY = 2**28
"""Bytes beyond which an array lies in a file instead of memory."""
DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
COLOURS = ("red", "green", "blue")
Channel = int | str
"""Number from 1, as Fiji counts, for files with channels; red, green or blue for colour
pictures."""


class PixelSize(NamedTuple):
    """Width and height of a pixel in micrometres."""

    x: float
    y: float

    @property
    def is_square(self) -> bool:
        return abs(self.x - self.y) <= 1e-6 * max(self.x, self.y)


@dataclass(frozen=True)
class Reading:
    """What a user may set about reading; large arrays lie in the folder `scratch`, if there is one."""

    channel: Channel | None = None
    max_pixels: int = MAX_PIXELS
    scratch: Path | None = None


@dataclass(frozen=True)
class Plane:
    """One plane of an open file whose pixels have not been read: `load` reads (H, W) or (H, W, 3)."""

    height: int
    width: int
    load: Callable[[], "Pixels"]
    label: str = ""
    pixel_size: PixelSize | None = None
    notes: tuple[str, ...] = ()


@dataclass
class Contents:
    """The planes of an open file in their order, and what was left aside or decided for the whole file."""

    format: str
    planes: list[Plane] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Picture:
    """A plane that has been read.

    `pixels` are (H, W) or (H, W, 3) in their own number type, native byte order, all finite.
    `outside` (H, W) is true where the file held no finite value. `name` is that of the results,
    `plane` says where in the file it lies, `notes` what was decided on the way.
    """

    name: str
    pixels: Pixels
    pixel_size: PixelSize | None = None
    plane: str = ""
    notes: tuple[str, ...] = ()
    outside: npt.NDArray[np.bool_] | None = None
    doubts: tuple[str, ...] = ()
    """Those of the notes that say why this may be no picture of nuclei."""


def check_channel(channel: Channel | None) -> Channel | None:
    """The channel as a whole number from 1 or a colour's name.

    Raises:
        UserError: anything else.
    """
    if channel is None or channel in COLOURS:
        return channel
    if isinstance(channel, str) and re.fullmatch(r"[0-9]{1,6}", channel.strip()):
        channel = int(channel)
    if isinstance(channel, int) and not isinstance(channel, bool) and channel >= 1:
        return channel
    raise UserError(
        f"channel {channel!r}: give a whole number, counted from 1, or one of {', '.join(COLOURS)} for colour pictures"
    )


def choose_channel(
    count: int, channel: Channel | None, shape: str, names: tuple[str, ...] = ()
) -> tuple[int, str]:
    """Index from 0 of the chosen one of `count` channels, and a note that says so; `shape` describes the array.

    Raises:
        UserError: several channels of which none is chosen; a number beyond them.
    """
    if count == 1:
        return 0, "" if channel is None else f"one channel only, CHANNEL={channel} has no effect"
    called = f", names {', '.join(names)}" if any(names) else ""
    if channel is None or isinstance(channel, str):
        raise UserError(
            f"has {count} channels; say which shows the nuclei, from CHANNEL=1 to CHANNEL={count} (shape "
            f"{shape}{called})"
        )
    if channel > count:
        raise UserError(
            f"has {count} channels; CHANNEL={channel} must be from 1 to {count} (shape {shape}{called})"
        )
    name = names[channel - 1] if channel <= len(names) else ""
    return channel - 1, f"channel {channel} of {count}{f' ({name})' if name else ''}"


def choose_colour(channel: Channel | None) -> tuple[int | None, str]:
    """Index of the colour to take of a colour picture, None for all three, and a note that says so."""
    if channel is None:
        return None, ""
    if isinstance(channel, str):
        return COLOURS.index(channel), f"{channel} of a colour picture"
    colour = COLOURS[channel - 1] if channel <= len(COLOURS) else "red, green or blue"
    return None, f"colour picture, CHANNEL={channel} has no effect (CHANNEL={colour} takes one)"


def check_size(height: int, width: int, max_pixels: int) -> None:
    """Refuses a plane without pixels, or with more than `max_pixels`, before memory is taken for it.

    Raises:
        UserError: as said.
    """
    if height < 1 or width < 1:
        raise UserError(f"has {width} x {height} pixels; expected at least one")
    if height * width > max_pixels:
        raise UserError(
            f"claims {width} x {height} pixels, more than the {max_pixels:,} that are read; if it is meant to, give "
            f"MAX_PIXELS={height * width}"
        )


def shape_text(axes: str, shape: tuple[int, ...]) -> str:
    return f"{axes} = {' x '.join(map(str, shape))}"


_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(path: Path | str) -> str:
    """The path as text that can be printed and stored: bytes that are not UTF-8 are written as \\xNN.

    So are ends of lines, and what would steer a terminal or turn the direction of writing.
    """
    text = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def allocate(shape: tuple[int, ...], dtype: Any, scratch: Path | None, name: str) -> Any:
    """Zeros in memory, or in a file of the folder `scratch` where they take more than `IN_MEMORY` bytes.

    Raises:
        OSError: the disk has not that much space.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if scratch is None or size <= IN_MEMORY:
        return np.zeros(shape, dtype)
    path = scratch / name
    with open(path, "wb") as file:
        # writing to a mapped page that a full disk has no place for would kill the process
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return np.memmap(path, dtype, "r+", shape=shape)
