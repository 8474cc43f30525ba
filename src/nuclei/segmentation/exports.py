"""Nuclei in the forms that other programs open: label map, GeoJSON, ImageJ's regions, measurements, an overlay.

Outlines run along the edges of pixels, with x to the right and y down from the image's corner, so
that filling one gives back the nucleus pixel by pixel.
"""

import csv
import json
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nuclei.arrays import Labels
from nuclei.data.intensity import Limits, apply_limits, display_limits, percentile_limits
from nuclei.io.files import atomic_path, write_text
from nuclei.io.picture import Picture, PixelSize
from nuclei.segmentation import measurements, preview
from nuclei.segmentation.flat_masks import flatten_masks
from nuclei.segmentation.outlines import Polygon, find_polygons
from nuclei.segmentation.rois import make_roi

OVERLAY_SIDE = 4096
"""Pixels of an overlay's longer side at most; larger images are thinned out by a whole number."""


_ROWS = 256


_YELLOW = (255, 220, 0)


def write_label_tiff(path: Path | str, label_map: Labels, nuclei: int, pixel_size: PixelSize | None) -> None:
    """Writes a label map as TIFF in strips: 16 bits, 32 only past 65,535 nuclei."""
    import tifffile

    kind = np.uint16 if nuclei <= np.iinfo(np.uint16).max else np.uint32
    height, width = label_map.shape
    strips = (
        zlib.compress(np.ascontiguousarray(label_map[top : top + _ROWS], kind).tobytes(), 6)
        for top in range(0, height, _ROWS)
    )
    options: dict[str, Any] = {}
    if pixel_size:
        resolution = (10_000 / pixel_size.x, 10_000 / pixel_size.y)
        options = {"resolution": resolution, "resolutionunit": "CENTIMETER"}
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            strips,
            shape=(height, width),
            dtype=kind,
            photometric="minisblack",
            compression="zlib",
            rowsperstrip=_ROWS,
            metadata=None,
            **options,
        )


def make_feature(label: int, area: int, outlines: list[Polygon]) -> dict[str, Any]:
    """The nucleus as a GeoJSON feature that QuPath takes for a detection; its label is its name and a measurement."""
    polygons = [[[*ring.tolist(), ring[0].tolist()] for ring in polygon] for polygon in outlines]
    single = len(polygons) == 1
    return {
        "type": "Feature",
        "geometry": {
            "type": "Polygon" if single else "MultiPolygon",
            "coordinates": polygons[0] if single else polygons,
        },
        "properties": {
            "objectType": "detection",
            "name": str(label),
            "measurements": {"Label": label, "Area px": area},
        },
    }


def write_overlay(path: Path | str, label_map: Labels, pixels: npt.NDArray[Any]) -> None:
    """Writes the image as PNG with a line along the inner rim of each nucleus, thicker on large images, and numbers."""
    step = -(-max(label_map.shape) // OVERLAY_SIDE)
    labels = np.ascontiguousarray(label_map[::step, ::step])
    picture = apply_limits(np.ascontiguousarray(pixels[::step, ::step]), overlay_limits(pixels)).copy()
    rims = find_rims(labels)
    thickness = 1 + max(labels.shape) // 1500
    if thickness > 1:
        rims = np.where(labels > 0, cv2.dilate(rims, np.ones((thickness, thickness), np.uint8)), 0)
    picture[rims > 0] = _YELLOW
    _write_numbers(picture, labels)
    done, encoded = cv2.imencode(".png", picture[..., ::-1])
    assert done, picture.shape
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def find_rims(labels: Labels) -> npt.NDArray[np.uint8]:
    """1 at pixels of nuclei that have another label or the background beside, above or below, else 0."""
    differs = np.zeros(labels.shape, bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        edge = labels[one] != labels[other]
        differs[one] |= edge
        differs[other] |= edge
    return (differs & (labels > 0)).astype(np.uint8)


def overlay_limits(pixels: npt.NDArray[Any]) -> Limits | None:
    """Limits to show an image by: 8 bits as they are, but stretched where nearly all is in the darker half."""
    if pixels.dtype != np.uint8:
        return display_limits(pixels)
    limits = percentile_limits(pixels, 0.1, 99.9)
    return limits if limits is not None and limits[1] < 128 else None


def _write_numbers(picture: npt.NDArray[np.uint8], labels: Labels) -> None:
    """Writes its label into each nucleus that is large enough for it."""
    from scipy import ndimage

    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        height, width = (side.stop - side.start for side in box)
        text = str(label)
        if height >= 12 and width >= 7 * len(text):
            place = (
                (box[1].start + box[1].stop) // 2 - 3 * len(text),
                (box[0].start + box[0].stop) // 2 + 4,
            )
            cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.3, _YELLOW, 1, cv2.LINE_AA)


def export_plane(picture: Picture, label_map: Labels, count: int, out: Path) -> list[str]:
    """Writes all files of a plane and returns their paths under `out`."""
    name = picture.name
    endings = {"labels": "tif", "geojson": "geojson", "rois": "zip", "measurements": "csv"}
    endings |= {"overlays": "png", "page": "json"}
    made = {folder: f"{folder}/{name}.{ending}" for folder, ending in endings.items()}
    write_label_tiff(out / made["labels"], label_map, count, picture.pixel_size)
    write_overlay(out / made["overlays"], label_map, picture.pixels)
    shown: list[preview.Shape] = []
    with ExitStack() as stack:
        places = {
            folder: stack.enter_context(atomic_path(out / made[folder]))
            for folder in ("geojson", "rois", "measurements")
        }
        rois = stack.enter_context(zipfile.ZipFile(places["rois"], "w", zipfile.ZIP_DEFLATED))
        table = stack.enter_context(open(places["measurements"], "w", encoding="utf-8", newline=""))
        features = stack.enter_context(open(places["geojson"], "w", encoding="utf-8"))
        write_geojson(features, _export_nuclei(picture, label_map, rois, table, shown))
    view = preview.make_preview(picture, shown, count, overlay_limits(picture.pixels))
    write_text(out / made["page"], view.model_dump_json() + "\n")
    return list(made.values())


def _export_nuclei(
    picture: Picture,
    label_map: Labels,
    rois: zipfile.ZipFile,
    table: Any,
    shown: list[preview.Shape],
) -> Iterable[Any]:
    """The features of all nuclei; on the way their regions, measurements and shapes for the page are written."""
    writer, empty = csv.writer(table, lineterminator="\n"), True
    for batch in measurements.list_batches(label_map, picture.pixels):
        flat = flatten_masks([nucleus.mask for nucleus in batch])
        rows = measurements.measure(batch, picture.pixel_size, flat)
        for row, polygons in zip(rows, find_polygons(batch, flat), strict=True):
            label, area = int(row["label"]), int(row["area"])
            rois.writestr(f"{label:05d}.roi", make_roi(label, polygons))
            if empty:
                writer.writerow(row)
                empty = False
            writer.writerow(f"{value:.6g}" if isinstance(value, float) else value for value in row.values())
            if len(shown) < preview.MOST:
                shown.append(preview.make_shape(row, polygons))
            yield make_feature(label, area, polygons)
    if empty:
        table.write("label,area\n")


def write_geojson(file: Any, features: Iterable[dict[str, Any]]) -> None:
    """Writes a FeatureCollection to an open text file, one feature at a time."""
    encoder = json.JSONEncoder(separators=(",", ":"))
    file.write('{"type": "FeatureCollection", "features": [')
    for number, feature in enumerate(features):
        file.write(("," if number else "") + "\n" + encoder.encode(feature))
    file.write("\n]}\n")
