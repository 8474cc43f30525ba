"""Pictures with corrected nuclei, to fine-tune on: a folder of images and label maps, or a folder of results.

The label maps are those that the results page, Fiji, napari or QuPath save: TIFF or PNG of whole
numbers, or GeoJSON polygons.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nuclei.arrays import Float64Array, Int64Array, LabelMap, Pixels
from nuclei.data.masks import MANY_PIECES, count_pieces, number_labels
from nuclei.errors import UserError
from nuclei.io import microscopy
from nuclei.io.picture import Channel, Reading, printable
from nuclei.segmentation.results import read_records

log = logging.getLogger(__name__)

IMAGES, LABELS, CORRECTED = "images", "labels", "corrected"
SUFFIXES = (".tif", ".tiff", ".png", ".geojson", ".json")
"""Endings of label maps; where a picture has several, the first of these is read."""
_MOST = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Corrected:
    """One picture: pixels (H, W) or (H, W, 3) of any type, label map (H, W) int32 with 0 as background.

    `file` is the name of the file that holds it, perhaps with other planes.
    """

    name: str
    file: str
    pixels: Pixels
    label_map: LabelMap


class CorrectedPictures:
    """Corrected pictures by id `<folder>/<name>`, with the methods of `data.prepared_images.AnnotatedImages`."""

    def __init__(self, folder: str, pictures: list[Corrected]) -> None:
        self.folder = folder
        self.pictures = {f"{folder}/{picture.name}": picture for picture in pictures}
        self.ids = list(self.pictures)

    def image(self, image_id: str) -> Pixels:
        return self.pictures[image_id].pixels

    def label_map(self, image_id: str) -> LabelMap:
        return self.pictures[image_id].label_map

    def modality(self, image_id: str) -> str:
        return self.folder

    def source(self, image_id: str) -> str:
        return self.folder


class Entry(NamedTuple):
    """A file of pictures, the name of its results, and the channel that is read."""

    path: Path
    name: str
    channel: Channel | None


def read_corrections(folder: Path, channel: Channel | None = None) -> CorrectedPictures:
    """The pictures of a folder that have a label map; the others are left aside and counted in the log.

    The folder has `images/` and `labels/<name>.tif`, or is one that `segment` wrote, with the
    corrected label maps in `corrected/`; the pictures are then read where they were segmented.
    Planes of a file with several are named as `segment` names them, `<name>_page001`.

    Raises:
        UserError: neither kind of folder; no label maps; one without a picture or of another size;
            a file that cannot be read.
    """
    labels, entries = find_entries(folder, channel)
    files = _find_label_maps(labels)
    pictures, aside = [], 0
    for entry in entries:
        if not _may_have_labels(entry.name, files):
            aside += 1
            continue
        for picture in microscopy.read_pictures(entry.path, entry.name, Reading(entry.channel)):
            path = files.pop(picture.name, None)
            if path is None:
                aside += 1
                continue
            label_map = read_corrected(path, picture.pixels.shape[:2])
            pictures.append(Corrected(picture.name, entry.path.name, picture.pixels, label_map))
    if files:
        raise UserError(
            f"{printable(labels)}: {len(files)} label maps have no picture, such as {min(files)}; a label map has the "
            "name of its picture, or of its plane (name_page001)"
        )
    if aside:
        log.info("%s: %d pictures have no label map and are left aside", printable(folder), aside)
    if not any(picture.label_map.any() for picture in pictures):
        raise UserError(
            f"{printable(labels)}: no nucleus in {len(pictures)} label maps; there is nothing to learn"
        )
    return CorrectedPictures(folder.resolve().name, pictures)


def find_entries(folder: Path, channel: Channel | None = None) -> tuple[Path, list[Entry]]:
    """The folder of label maps, and the files of pictures that they may be of.

    Raises:
        UserError: neither kind of folder; no pictures there.
    """
    if (folder / IMAGES).is_dir() and (folder / LABELS).is_dir():
        found = microscopy.find_pictures(folder / IMAGES).pictures
        return folder / LABELS, [Entry(path, name, channel) for name, path in found.items()]
    records = read_records(folder)
    if records and (folder / CORRECTED).is_dir():
        entries = [
            Entry(Path(record.folder) / record.source.file, name, channel or record.source.channel)
            for name, record in records.items()
        ]
        return folder / CORRECTED, entries
    if records:
        raise UserError(
            f"{printable(folder)}: results without {CORRECTED}/; put the label maps there that you corrected, "
            "under the names that the results page gives them"
        )
    raise UserError(
        f"{printable(folder)}: expected a folder with {IMAGES}/ and {LABELS}/, or results of `segment` with "
        f"{CORRECTED}/"
    )


def _find_label_maps(folder: Path) -> dict[str, Path]:
    """Files of label maps by the name of their picture."""
    found: dict[str, Path] = {}
    for suffix in SUFFIXES:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() == suffix and not path.name.startswith("."):
                found.setdefault(path.stem, path)
    if not found:
        raise UserError(f"{printable(folder)}: no label maps there; expected {', '.join(SUFFIXES)}")
    return found


def _may_have_labels(name: str, files: dict[str, Path]) -> bool:
    """Whether there is a label map of a file, or of one of its planes."""
    return name in files or any(file.startswith(f"{name}_page") for file in files)


def read_corrected(path: Path, shape: tuple[int, ...]) -> LabelMap:
    """The label map (H, W) int32 of a file with the labels 1..N, for a picture of `shape`.

    Raises:
        UserError: no label map; another size than the picture's; more than 65,535 nuclei.
    """
    if path.suffix.lower() in (".geojson", ".json"):
        label_map = _read_geojson(path, (shape[0], shape[1]))
    else:
        label_map = number_labels(_read_labels(path, (shape[0], shape[1])))
    if label_map.max(initial=0) > _MOST:
        raise UserError(f"{printable(path)}: more than {_MOST:,} nuclei; cut picture and label map into parts")
    return label_map


def _read_labels(path: Path, shape: tuple[int, int]) -> Int64Array:
    """The values (H, W) of a label map of TIFF or PNG."""
    planes = [picture.pixels for picture in microscopy.read_pictures(path, path.stem)]
    labels = planes[0] if len(planes) == 1 else np.empty(0)
    whole = labels.ndim == 2 and (labels.dtype.kind in "ui" or bool((labels == np.floor(labels)).all()))
    if not whole or labels.min(initial=0) < 0:
        raise UserError(
            f"{printable(path)}: no label map; expected one grey plane of whole numbers, 0 for background and another "
            "number for each nucleus"
        )
    if labels.shape != shape:
        raise UserError(
            f"{printable(path)}: the label map is {labels.shape[1]} x {labels.shape[0]} pixels, its picture "
            f"{shape[1]} x {shape[0]}; save the label map at the picture's size"
        )
    pieces = count_pieces(labels > 0)
    if pieces >= MANY_PIECES and labels[labels > 0].min() == labels.max():
        raise UserError(
            f"{printable(path)}: all {pieces} objects have the number {labels.max():g}; a label map has another number "
            "for each nucleus (Fiji: Analyze > Analyze Particles, Show: Count Masks)"
        )
    return labels.astype(np.int64)


def _read_geojson(path: Path, shape: tuple[int, int]) -> LabelMap:
    """The label map of polygons in pixels, as QuPath and the results page write them; later ones lie on top."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        features = content["features"] if isinstance(content, dict) else content
        nuclei = [_list_rings(feature["geometry"]) for feature in features]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{printable(path)}: no GeoJSON with a polygon for each nucleus ({error!r:.100})"
        ) from error
    labels = np.zeros(shape, np.int64)
    for label, rings in enumerate(nuclei, start=1):
        _fill(labels, rings, label)
    return number_labels(labels)


def _fill(labels: Int64Array, rings: list[Float64Array], label: int) -> None:
    """Sets the pixels whose middle lies inside of the rings (N, 2), x first; a ring in a ring is a hole."""
    from skimage.draw import polygon

    corners = np.concatenate(rings)
    left, top = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    right, bottom = np.ceil(corners.max(0)).astype(int)
    part = labels[top : max(top, bottom), left : max(left, right)]
    if not part.size:
        return
    inside = np.zeros(part.shape, bool)
    for ring in rings:
        inside[polygon(ring[:, 1] - top - 0.5, ring[:, 0] - left - 0.5, part.shape)] ^= True
    part[inside] = label


def _list_rings(geometry: dict[str, Any]) -> list[Float64Array]:
    """All rings (N, 2) of a polygon or of several, outer ones and holes.

    Raises:
        ValueError, TypeError: another kind of geometry; a ring that is no list of corners.
    """
    kind, coordinates = geometry["type"], geometry["coordinates"]
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"a {kind}")
    polygons = [coordinates] if kind == "Polygon" else coordinates
    rings = [np.asarray(ring, float) for polygon in polygons for ring in polygon]
    if not rings:
        raise ValueError("a polygon without corners")
    for ring in rings:
        # a picture has far fewer pixels; a corner beyond them could not be counted in whole numbers
        if ring.ndim != 2 or ring.shape[1] < 2 or not (np.abs(ring) < 1e9).all():
            raise ValueError(f"a ring of shape {ring.shape}, expected corners (x, y)")
    return [ring[:, :2] for ring in rings]
