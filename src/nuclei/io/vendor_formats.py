"""CZI, ND2 and LIF through the readers of `pip install "nuclei[formats]"`, each plane by itself.

Named axes only: what the reader calls C is channels, S or 0 samples of a colour picture, all others
count planes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from nuclei.arrays import Pixels
from nuclei.errors import UserError
from nuclei.io.ome import has_document_type
from nuclei.io.picture import (
    Contents,
    PixelSize,
    Plane,
    Reading,
    check_size,
    choose_channel,
    choose_colour,
    shape_text,
)
from nuclei.io.pixel_size import make_pixel_size, parse_number

READERS = {".czi": "czifile", ".nd2": "nd2", ".lif": "liffile"}
"""Packages that read a kind of file."""


class Image(NamedTuple):
    """One image of a file: a letter for each axis, `read` gives all of its array, in a file where it is large."""

    name: str
    axes: str
    shape: tuple[int, ...]
    read: Callable[[], Pixels]
    pixel_size: PixelSize | None
    note: str


@contextmanager
def open_vendor(path: Path, kind: str, reading: Reading) -> Iterator[Contents]:
    """The planes of a microscope's own file.

    Raises:
        UserError: the package that reads it is not installed; channels of which none is chosen.
    """
    package = READERS[kind]
    if find_spec(package) is None:
        raise UserError(
            f'takes the package {package} to be read: pip install "nuclei[formats]" (or {package}), or save it as '
            "OME-TIFF"
        )
    opened = {".czi": _open_czi, ".nd2": _open_nd2, ".lif": _open_lif}[kind]
    with opened(path) as images:
        contents = Contents(kind[1:].upper())
        for image in images:
            contents.planes += _list_planes(image, reading, image.name if len(images) > 1 else "")
        if not contents.planes:
            raise UserError("holds no image")
        yield contents


def _list_planes(image: Image, reading: Reading, name: str) -> Iterator[Plane]:
    sizes = dict(zip(image.axes, image.shape, strict=True))
    if "Y" not in sizes or "X" not in sizes:
        raise UserError(f"has no rows and columns, shape {shape_text(image.axes, image.shape)}")
    check_size(sizes["Y"], sizes["X"], reading.max_pixels)
    text = shape_text(image.axes, image.shape)
    channel, note = choose_channel(sizes.get("C", 1), reading.channel, text)
    colour, colour_note = choose_colour(reading.channel) if sizes.get("S", 1) >= 3 else (0, "")
    counted = [axis for axis in image.axes if axis not in "YXSC"]
    whole: list[Pixels] = []

    def load(place: dict[str, int]) -> Pixels:
        if not whole:
            whole.append(image.read())
        index = tuple(slice(None) if axis in "YXS" else place.get(axis, 0) for axis in image.axes)
        kept = "".join(axis for axis in image.axes if axis in "YXS")
        plane = whole[0][index].transpose([kept.index(axis) for axis in "YXS" if axis in kept])
        if plane.ndim == 2:
            return np.asarray(plane)
        return plane[..., :3] if colour is None else plane[..., colour]

    for place in np.ndindex(*(sizes[axis] for axis in counted)):
        where = dict(zip(counted, place, strict=True))
        label = ", ".join(f"{axis}={number + 1}" for axis, number in where.items() if sizes[axis] > 1)
        yield Plane(
            sizes["Y"],
            sizes["X"],
            lambda where=where: load({**where, "C": channel}),  # type: ignore[misc]
            ", ".join(part for part in (name, label) if part),
            image.pixel_size,
            tuple(said for said in (note, colour_note, image.note) if said),
        )


@contextmanager
def _open_czi(path: Path) -> Iterator[list[Image]]:
    import czifile

    with czifile.CziFile(str(path)) as file:
        size, note = _read_czi_scaling(file.metadata())
        if hasattr(file, "scenes"):  # czifile of 2026, which Python 3.12 and later get
            yield [
                Image(
                    f"scene {number}",
                    scene.axes,
                    tuple(scene.shape),
                    partial(scene.asarray, out="memmap"),
                    size,
                    note,
                )
                for number, scene in enumerate(file.scenes.values(), start=1)
            ]
        else:
            axes = file.axes.replace("S", "P").replace("0", "S")  # its S are scenes, its 0 samples
            yield [Image("", axes, tuple(file.shape), partial(file.asarray, out="memmap"), size, note)]


def _read_czi_scaling(text: str) -> tuple[PixelSize | None, str]:
    """Pixel size by the file's XML, which tells metres."""
    if has_document_type(text):
        return None, "metadata cannot be read safely; no pixel size"
    values = {}
    try:
        for distance in ElementTree.fromstring(text).iter("Distance"):
            metres = parse_number(distance.findtext("Value"))
            values[distance.get("Id")] = metres * 1e6 if metres else None
    except ElementTree.ParseError:
        return None, ""
    return make_pixel_size(values.get("X"), values.get("Y"), "CZI")


@contextmanager
def _open_nd2(path: Path) -> Iterator[list[Image]]:
    import nd2

    with nd2.ND2File(path) as file:
        voxel = file.voxel_size()
        size, note = make_pixel_size(voxel.x, voxel.y, "ND2")
        yield [Image("", "".join(file.sizes), tuple(file.sizes.values()), file.asarray, size, note)]


@contextmanager
def _open_lif(path: Path) -> Iterator[list[Image]]:
    import liffile

    with liffile.LifFile(path) as file:
        images = []
        for image in file.images:
            steps = [_measure_step(image.coords.get(axis)) for axis in "XY"]
            size, note = make_pixel_size(steps[0], steps[1], "LIF")
            read = image.asarray
            images.append(Image(image.name, "".join(image.dims), tuple(image.shape), read, size, note))
        yield images


def _measure_step(coordinates: Any) -> float | None:
    """Micrometres from a pixel to the next of coordinates in metres."""
    if coordinates is None or len(coordinates) < 2:
        return None
    return float(coordinates[1] - coordinates[0]) * 1e6
