"""The plane of a TIFF page as it is segmented: samples chosen, colours converted, turned as viewers show it."""

from collections.abc import Sequence
from typing import Any

from nuclei.arrays import Pixels
from nuclei.errors import UserError
from nuclei.io import colour
from nuclei.io.picture import PixelSize, Plane
from nuclei.io.tiff_axes import Samples

_ORIENTATIONS = {2: "mirrored", 3: "turned by 180 degrees", 4: "mirrored", 5: "turned and mirrored",
                 6: "turned by 90 degrees", 7: "turned and mirrored", 8: "turned by 270 degrees"}  # fmt: skip


def finish_plane(data: Pixels, page: Any, samples: Samples, from_imagej: bool) -> Pixels:
    """The plane (H, W) or (H, W, S) as it is segmented: samples chosen, colours converted, turned as viewers do."""
    if data.ndim == 3 and samples.kind != "colours":
        data = data[..., samples.first]
    data = colour.convert_colour(data, page, from_imagej)
    if data.ndim == 3 and samples.kind == "colours":
        data = data[..., :3] if samples.first is None else data[..., samples.first]
    return orient(data, _orientation(page))


def orient(pixels: Pixels, orientation: int) -> Pixels:
    """The pixels as they are to be seen, by TIFF's and EXIF's numbers from 1 to 8."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _orientation(page: Any) -> int:
    tag = page.tags.get("Orientation")
    number = tag.value if tag is not None else 1
    return number if number in _ORIENTATIONS else 1


def make_plane(
    height: int,
    width: int,
    load: Any,
    page: Any,
    label: str,
    size: PixelSize | None,
    notes: Sequence[str],
) -> Plane:
    """A plane with the orientation of its page applied."""
    number = _orientation(page)
    if number >= 5:
        height, width = width, height
        size = PixelSize(size.y, size.x) if size else None
    if number != 1:
        notes = (*notes, f"{_ORIENTATIONS[number]} by the file's orientation, as viewers show it")
    return Plane(height, width, load, label, size, tuple(note for note in notes if note))


def check_whole(page: Any, file: Any) -> None:
    """Raises a UserError if a page's pixels lie beyond the end of the file."""
    ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if max(ends, default=0) > file.filehandle.size:
        raise UserError(f"ends after {file.filehandle.size:,} of {max(ends):,} bytes; fetch or save it again")
