"""OME-XML: pixel sizes, names of channels, and which planes of a file set a file holds.

The text comes from strangers: a document type, which can make a parser expand entities for ever, is
refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree import ElementTree

from nuclei.io.picture import PixelSize
from nuclei.io.pixel_size import make_pixel_size, micrometres, parse_number

_DOCUMENT_TYPE = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)


class OmePlane(NamedTuple):
    """Where a plane lies: page of the file, index of its image, and C, Z, T counted from 0."""

    page: int
    image: int
    c: int
    z: int
    t: int


@dataclass(frozen=True)
class OmeImage:
    """What the XML says of one image; pixel sizes in micrometres."""

    name: str
    channels: tuple[str, ...]
    sizes: dict[str, int]
    pixel_size: PixelSize | None
    note: str


@dataclass(frozen=True)
class Ome:
    """What the XML says of all images; `own` are the planes of this file where others hold some too, named `others`."""

    images: list[OmeImage]
    own: list[OmePlane]
    others: tuple[str, ...]


def has_document_type(text: str) -> bool:
    """Whether the XML declares a document type or entities, which OME-XML never does."""
    return _DOCUMENT_TYPE.search(text) is not None


def read_ome(text: str, file_name: str) -> Ome | None:
    """What OME-XML says; None where it is no XML, or declares a document type."""
    if has_document_type(text):
        return None
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None
    images: list[OmeImage] = []
    own: list[OmePlane] = []
    others: list[str] = []
    for index, image in enumerate(_children(root, "Image")):
        for pixels in _children(image, "Pixels"):
            images.append(_read_image(image, pixels))
            for data in _children(pixels, "TiffData"):
                other = _other_file(data, root.get("UUID"), file_name)
                if other is None:
                    own += _list_planes(data, index, pixels)
                elif other not in others:
                    others.append(other)
    return Ome(images, own, tuple(others))


def _children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Children of that name in whatever namespace."""
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def _read_image(image: ElementTree.Element, pixels: ElementTree.Element) -> OmeImage:
    sizes = {axis: _whole(pixels.get(f"Size{axis}"), 1) for axis in "XYZCT"}
    lengths: list[float | None] = []
    unknown = []
    for axis in "XY":
        value, unit = (
            parse_number(pixels.get(f"PhysicalSize{axis}")),
            pixels.get(f"PhysicalSize{axis}Unit", "µm"),
        )
        scale = micrometres(unit)
        if value is not None and scale is None:
            unknown.append(unit)
        lengths.append(value * scale if value is not None and scale is not None else None)
    size, note = make_pixel_size(lengths[0], lengths[1], "OME")
    if unknown:
        size, note = None, f"pixel size in {unknown[0]!r} (OME) is no length and left out"
    channels = tuple(channel.get("Name", "") for channel in _children(pixels, "Channel"))
    return OmeImage(image.get("Name", ""), channels, sizes, size, note)


def _other_file(data: ElementTree.Element, own_uuid: str | None, file_name: str) -> str | None:
    """Name of the file that holds the planes of a TiffData element; None where it is this one."""
    for uuid in _children(data, "UUID"):
        name = uuid.get("FileName", "")
        same = (uuid.text or "").strip() == own_uuid if own_uuid else name == file_name
        return None if same or name == file_name else name or (uuid.text or "").strip()
    return None


def _list_planes(data: ElementTree.Element, image: int, pixels: ElementTree.Element) -> Iterator[OmePlane]:
    """Planes of a TiffData element in the order of the image's dimensions."""
    order = pixels.get("DimensionOrder", "")[2:]
    if sorted(order) != ["C", "T", "Z"]:
        order = "CZT"
    sizes = [_whole(pixels.get(f"Size{axis}"), 1) for axis in order]
    first = [_whole(data.get(f"First{axis}"), 0) for axis in order]
    page = _whole(data.get("IFD"), 0)
    total = sizes[0] * sizes[1] * sizes[2]
    count = _whole(data.get("PlaneCount"), 1 if data.get("IFD") else total)
    start = first[0] + sizes[0] * (first[1] + sizes[1] * first[2])
    for step in range(min(count, total - start)):
        rest, inner = divmod(start + step, sizes[0])
        outer, middle = divmod(rest, sizes[1])
        place = dict(zip(order, (inner, middle, outer), strict=True))
        yield OmePlane(page + step, image, place.get("C", 0), place.get("Z", 0), place.get("T", 0))


def _whole(text: str | None, default: int) -> int:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,9}", text) else default
