"""Settings of a segmentation, checked before anything heavy is loaded."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from nuclei.errors import UserError
from nuclei.io.picture import MAX_PIXELS, Channel, Picture, PixelSize, check_channel, printable
from nuclei.io.pixel_size import LARGEST, SMALLEST
from nuclei.segmentation.filters import read_area

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
_SCALES = (0.1, 8.0)

Mode = Literal["fast", "best"]
MODES: tuple[str, ...] = get_args(Mode)


@dataclass(frozen=True)
class Settings:
    """What a user may set; `pixel_size` is in micrometres and that of the file where absent.

    The network sees each image enlarged by `scale`: 2 finds nuclei of 4 to 6 pixels across. `mode`
    fast takes the first network of the weights at one scale that fits the nuclei; best takes all
    networks, scales and flips of the weights. `min_area` and `max_area` of a nucleus are
    pixels, or text such as 20um2. Long thin objects are left out unless `keep_fibres`.

    Raises:
        UserError: a value that is impossible, by the name of its setting.
    """

    channel: Channel | None = None
    pixel_size: float | None = None
    device: str = "auto"
    max_pixels: int = MAX_PIXELS
    scale: float = 1.0
    mode: Mode = "fast"
    min_area: float | str | None = None
    max_area: float | str | None = None
    keep_fibres: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "channel", check_channel(self.channel))
        if self.pixel_size is not None and not SMALLEST <= _number(self.pixel_size) <= LARGEST:
            raise UserError(
                f"PIXEL_SIZE={self.pixel_size}: expected micrometres a pixel, from {SMALLEST} to {LARGEST} "
                "(325 nm are 0.325)"
            )
        if not _DEVICE.fullmatch(self.device):
            raise UserError(f"DEVICE={self.device}: expected auto, cpu, cuda, cuda:1 or mps")
        if isinstance(self.max_pixels, bool) or not isinstance(self.max_pixels, int) or self.max_pixels < 1:
            raise UserError(f"MAX_PIXELS={self.max_pixels}: expected a whole number above 0")
        if not _SCALES[0] <= _number(self.scale) <= _SCALES[1]:
            raise UserError(f"SCALE={self.scale}: expected a number from {_SCALES[0]} to {_SCALES[1]}")
        if self.mode not in MODES:
            raise UserError(f"MODE={self.mode}: expected one of {', '.join(MODES)}")
        smallest, largest = read_area(self.min_area, "MIN_AREA"), read_area(self.max_area, "MAX_AREA")
        if smallest and largest and smallest.is_um2 == largest.is_um2 and smallest.value > largest.value:
            raise UserError(f"MIN_AREA={smallest} is more than MAX_AREA={largest}: no nucleus would be left")

    def with_pixel_size(self, picture: Picture) -> Picture:
        """The picture, with the pixel size of the setting where there is one."""
        if self.pixel_size is None:
            return picture
        return replace(picture, pixel_size=PixelSize(self.pixel_size, self.pixel_size))

    def area_limits(self, size: PixelSize | None) -> tuple[float | None, float | None]:
        """The smallest and largest area of a nucleus in pixels of a size in micrometres, None for no limit.

        Raises:
            UserError: a limit is in micrometres and the size of a pixel is not known.
        """
        smallest, largest = read_area(self.min_area, "MIN_AREA"), read_area(self.max_area, "MAX_AREA")
        return (
            smallest.pixels(size) if smallest else None,
            largest.pixels(size) if largest else None,
        )


def _number(value: float) -> float:
    """The value, or not-a-number where it is no real number: that lies in no range."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def check_out(out: Path, images: Path) -> None:
    """Raises a UserError unless results can be written to `out`."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{printable(out)}: is a file; give OUT= a folder for the results")
    if images.is_dir() and out.resolve() == images.resolve():
        raise UserError(f"{printable(out)}: holds the pictures; give OUT= another folder for the results")
