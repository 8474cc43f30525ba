"""Planes of TIFF files: every image of a file that is no pyramid level, by the axes that its metadata name.

docs/your-images.md has the rules as a table. Only headers are read until a plane is loaded.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nuclei.arrays import Pixels
from nuclei.errors import UserError
from nuclei.io import colour, ome
from nuclei.io.picture import (
    IN_MEMORY,
    Contents,
    PixelSize,
    Plane,
    Reading,
    check_size,
    choose_channel,
    shape_text,
)
from nuclei.io.pixel_size import make_pixel_size, parse_number, tag_pixel_size
from nuclei.io.pyramids import split_levels
from nuclei.io.tiff_axes import UNNAMED, Layout, choose_samples, name_axes
from nuclei.io.tiff_planes import check_whole, finish_plane, make_plane

_SLIDE_EXTRAS = ("thumbnail", "label", "macro")


@contextmanager
def open_tiff(path: Path, reading: Reading) -> Iterator[Contents]:
    """The planes of a TIFF, to be loaded while the file is open.

    Raises: UserError: a file of which nothing can be read; channels of which none is chosen; a
        colour model that is not
            converted.
    """
    import tifffile

    with _collected_warnings() as warnings, ExitStack() as stack:
        file = stack.enter_context(tifffile.TiffFile(path))
        if not len(file.pages):
            raise UserError("has no pages")
        text = file.ome_metadata
        described = ome.read_ome(text, path.name) if text else None
        fits = not file.is_imagej or _fits_pages(file)
        if text and (described is None or described.others):
            file = stack.enter_context(tifffile.TiffFile(path, is_ome=False))
        elif not fits:
            file = stack.enter_context(tifffile.TiffFile(path, is_imagej=False))
        if described and described.others:
            contents = _list_own_planes(file, described, reading, path)
        else:
            contents = _list_series(file, described, reading)
        if not fits:
            contents.notes.append("ImageJ's metadata name fewer images than there are and are not used")
        if text and described is None:
            contents.notes.append("OME-XML cannot be read safely; axes and pixel size by the pages alone")
        if file.is_imagej and any("corrupted" in warning for warning in warnings):
            raise UserError(
                "is cut off: it holds fewer images than ImageJ's metadata name; fetch or save it again"
            )
        contents.notes += [warning for warning in warnings if "OME series" not in warning]
        yield contents


def _fits_pages(file: Any) -> bool:
    """Whether ImageJ's metadata name all pages: other programs add pages and keep the metadata."""
    series = file.series[0]
    sizes = zip(series.axes, series.shape, strict=True)
    return bool(len(file.pages) <= math.prod(size for axis, size in sizes if axis not in "YXS"))


def _list_series(file: Any, described: ome.Ome | None, reading: Reading) -> Contents:
    """Planes of all series but pyramid levels."""
    contents = Contents("OME-TIFF" if described else "ImageJ TIFF" if file.is_imagej else "TIFF")
    series = _choose_series(file, contents)
    unnamed = len(file.pages) - _count_named(file) if described else 0
    if unnamed > 0:
        contents.notes.append(f"{unnamed} pages that the OME-XML does not name left aside")
    for number, one in enumerate(series):
        image = _image_of(described, number, len(series))
        label = (one.name if one.kind == "ome" else "") or f"image {number + 1}"
        contents.planes += _SeriesReader(file, one, image, reading).list_planes(
            label if len(series) > 1 else ""
        )
    if not contents.planes:
        raise UserError("holds no image")
    return contents


def _count_named(file: Any) -> int:
    """Pages of the file itself, not of a SubIFD, that belong to its series or their levels."""
    pages = (page for series in file.series for level in series.levels for page in level.pages)
    return len({page.treeindex for page in pages if page is not None and len(page.treeindex) == 1})


def _choose_series(file: Any, contents: Contents) -> list[Any]:
    """All series in their order, without reduced copies and the label of a slide, which are named in the notes."""
    chosen = []
    for one in split_levels(file):
        if one.name.casefold() in _SLIDE_EXTRAS:
            contents.notes.append(f"the slide's {one.name.casefold()} left aside")
        elif math.prod(one.shape):
            chosen.append(one)
    full = [one for one in chosen if not one.keyframe.is_reduced]
    if full and len(full) < len(chosen):
        contents.notes.append(f"{len(chosen) - len(full)} reduced copies left aside")
    levels = sum(len(one.levels) - 1 for one in full or chosen)
    if levels:
        contents.notes.append(f"{levels} pyramid levels left aside, full size read")
    return full or chosen


def _image_of(described: ome.Ome | None, number: int, count: int) -> ome.OmeImage | None:
    """The OME image of a series: they come in the same order."""
    if described is None or not described.images:
        return None
    return described.images[number] if len(described.images) == count else described.images[0]


class _SeriesReader:
    """One series: which of its axes count planes and which one channels, and the loading of a plane."""

    def __init__(self, file: Any, series: Any, image: ome.OmeImage | None, reading: Reading) -> None:
        self.file, self.series, self.image, self.reading = file, series, image, reading
        self.page = series.keyframe
        self.whole: Pixels | None = None
        # pages in colour are no channels of one picture
        channel_given = reading.channel is not None and not colour.is_colour(self.page)
        self.layout, self.note = name_axes(series.axes, series.shape, channel_given)

    def list_planes(self, label: str) -> Iterator[Plane]:
        """Planes in the order of the file.

        Raises:
            UserError: as in `open_tiff`.
        """
        layout, page = self.layout, self.page
        colour.check_colour(page, self.file.is_imagej)
        check_size(layout.size("Y"), layout.size("X"), self.reading.max_pixels)
        names = self.image.channels if self.image else ()
        self.samples = choose_samples(page, layout, self.reading)
        channel, channel_note = choose_channel(layout.size("C"), self._channel(), layout.text, names)
        size, size_note = self._find_pixel_size()
        counted = [axis for axis in range(len(layout.axes)) if layout.axes[axis] not in "YXSC"]
        colours = colour.describe_colour(page, self.file.is_imagej)
        notes = (*self._explain(counted), channel_note, colours, *self.samples.notes, size_note)
        for place in np.ndindex(*(layout.shape[axis] for axis in counted)):
            index = [0] * len(layout.axes)
            for axis, position in zip(counted, place, strict=True):
                index[axis] = position
            if "C" in layout.axes:
                index[layout.axes.index("C")] = channel
            if self._is_missing(index):
                continue
            where = ", ".join(
                _name_place(layout, axis, index[axis]) for axis in counted if layout.shape[axis] > 1
            )
            yield make_plane(
                layout.size("Y"),
                layout.size("X"),
                lambda index=tuple(index): self._load(index),
                page,
                ", ".join(part for part in (label, where) if part),
                size,
                notes,
            )

    def _channel(self) -> Any:
        """CHANNEL= belongs to the samples where these are channels or colours."""
        return self.reading.channel if self.samples.kind == "grey" or self.layout.size("C") > 1 else None

    def _explain(self, counted: Sequence[int]) -> tuple[str, ...]:
        """What was decided about the axes, where there was something to decide."""
        named = "".join(self.layout.axes[axis] for axis in counted if self.layout.shape[axis] > 1)
        notes = [self.note]
        if named and not set(named) & set(UNNAMED):
            notes.append(f"axes {self.series.axes}: each {'/'.join(named)} by itself")
        missing = sum(page is None for page in self.series.pages)
        if missing:
            notes.append(f"{missing} planes that the metadata name are not in the file")
        return tuple(notes)

    def _find_pixel_size(self) -> tuple[PixelSize | None, str]:
        if self.image is not None and (self.image.pixel_size or self.image.note):
            return self.image.pixel_size, self.image.note
        lsm = self.file.lsm_metadata if self.file.is_lsm else None
        if lsm:
            return make_pixel_size(lsm.get("VoxelSizeX", 0) * 1e6, lsm.get("VoxelSizeY", 0) * 1e6, "LSM")
        slide = _slide_resolution(self.file)
        if slide:
            return make_pixel_size(slide, slide, "MPP of the slide")
        unit = (self.file.imagej_metadata or {}).get("unit") if self.file.is_imagej else None
        return tag_pixel_size(self.page, str(unit) if unit else None)

    def _is_missing(self, index: Sequence[int]) -> bool:
        number = self._page_number(index)
        return number is not None and self.series.pages[number] is None

    def _page_number(self, index: Sequence[int]) -> int | None:
        """Number of the page that holds a plane; None where a page holds several, or a plane lies in several."""
        outer = _outer_axes(self.layout)
        if self.layout.axes[: len(outer)] != outer:
            return None
        shape = self.layout.shape[: len(outer)]
        inner = set(self.layout.axes[len(outer) :])
        if len(self.series.pages) != math.prod(shape) or inner - set("YXS"):
            return None
        return int(np.ravel_multi_index(tuple(index[: len(outer)]), shape)) if outer else 0

    def _load(self, index: tuple[int, ...]) -> Pixels:
        layout, number = self.layout, self._page_number(index)
        outer = len(_outer_axes(layout))
        data: Pixels
        if number is None:
            axes = [axis for axis in range(len(layout.axes)) if layout.axes[axis] in "YXS"]
            data = self._read_whole()[
                tuple(slice(None) if axis in axes else index[axis] for axis in range(len(index)))
            ]
            kept = "".join(layout.axes[axis] for axis in axes)
        else:
            page = self.series.pages[number]
            check_whole(page, self.file)
            data = page.asarray(out=self._out(page.nbytes)).reshape(layout.shape[outer:])
            kept = layout.axes[outer:]
        data = data.transpose([kept.index(axis) for axis in "YXS" if axis in kept])
        return finish_plane(data, self.page, self.samples, self.file.is_imagej)

    def _read_whole(self) -> Pixels:
        """The array of all planes, in the file itself where it lies there as it is."""
        if self.whole is None:
            series, handle = self.series, self.file.filehandle
            for page in series.pages:
                if page is not None and len(series.pages) > 1:
                    check_whole(page, self.file)
            dtype = np.dtype(self.file.byteorder + series.dtype.char)
            if (
                series.dataoffset is not None
                and dtype.isnative
                and series.dtype != bool
                and self.page.fillorder == 1
            ):
                count = series.dataoffset + series.nbytes
                if count > handle.size:
                    raise UserError(f"ends after {handle.size:,} of {count:,} bytes; fetch or save it again")
                self.whole = np.memmap(handle.path, dtype, "r", series.dataoffset, self.layout.shape)
            else:
                self.whole = series.asarray(out=self._out(series.nbytes)).reshape(self.layout.shape)
        return self.whole

    def _out(self, size: int) -> str | None:
        """Where tifffile puts an array: in memory, or in a file of the scratch folder that has no name."""
        if size <= IN_MEMORY:
            return None
        return f"memmap:{self.reading.scratch}" if self.reading.scratch else "memmap"


def _outer_axes(layout: Layout) -> str:
    return "".join(axis for axis in layout.axes if axis not in "YXS")


def _name_place(layout: Layout, axis: int, position: int) -> str:
    name = layout.axes[axis]
    return f"page {position + 1}" if name in UNNAMED else f"{name}={position + 1}"


def _slide_resolution(file: Any) -> float | None:
    """Micrometres a pixel by the description of an Aperio slide."""
    if not file.is_svs:
        return None
    fields = file.pages[0].description.split("|")
    found = [field.partition("=")[2].strip() for field in fields if field.strip().startswith("MPP")]
    return parse_number(found[0]) if found else None


def _list_own_planes(file: Any, described: ome.Ome, reading: Reading, path: Path) -> Contents:
    """Planes of an OME file set that lie in this file."""
    contents, pages = Contents("OME-TIFF"), list(file.pages)
    absent = [name for name in described.others if not (path.parent / name).is_file()]
    contents.notes.append(f"one of {len(described.others) + 1} files of an OME set, its own planes read")
    if absent:
        contents.notes.append(f"of the set {', '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing")
    for own in described.own:
        if own.page < len(pages):
            plane = _make_own_plane(file, pages[own.page], own, described, reading)
            contents.planes += [plane] if plane else []
    if not contents.planes:
        raise UserError(
            f"holds no plane of channel {reading.channel}, which other files of its OME set hold"
            if described.own
            else "holds no plane of its OME file set"
        )
    return contents


def _make_own_plane(
    file: Any, page: Any, own: ome.OmePlane, described: ome.Ome, reading: Reading
) -> Plane | None:
    """The plane, or None where it is of another channel than the one asked for."""
    image = described.images[own.image]
    shape = image.sizes
    colour.check_colour(page)
    layout = Layout(page.axes, tuple(int(size) for size in page.shape))
    check_size(layout.size("Y"), layout.size("X"), reading.max_pixels)
    samples = choose_samples(page, layout, reading)
    channel_note = ""
    if shape["C"] > 1 and layout.size("S") == 1:
        text = shape_text("TZCYX", tuple(shape[axis] for axis in "TZCYX"))
        channel, channel_note = choose_channel(shape["C"], reading.channel, text, image.channels)
        if channel != own.c:
            return None
    where = [f"{axis}={position + 1}" for axis, position in (("T", own.t), ("Z", own.z)) if shape[axis] > 1]
    label = ", ".join([image.name] * (len(described.images) > 1 and bool(image.name)) + where)

    def load() -> Pixels:
        check_whole(page, file)
        data = page.asarray(out="memmap" if page.nbytes > IN_MEMORY else None).reshape(layout.shape)
        data = data.transpose([layout.axes.index(axis) for axis in "YXS" if axis in layout.axes])
        return finish_plane(data, page, samples, False)

    notes = (channel_note, colour.describe_colour(page, False), *samples.notes, image.note)
    return make_plane(layout.size("Y"), layout.size("X"), load, page, label, image.pixel_size, notes)


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """What tifffile complains of, instead of on standard error."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            found.append(message.partition("> ")[2] or message)

    logger, collector = logging.getLogger("tifffile"), Collector(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield found
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate
