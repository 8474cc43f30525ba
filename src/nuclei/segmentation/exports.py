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
from nuclei.io.files import atomic_path, write_json
from nuclei.io.picture import Picture, PixelSize
from nuclei.segmentation import measurements, preview
from nuclei.segmentation.measurements import Nucleus

Ring = npt.NDArray[np.int64]
"""Corners (N, 2), x and y, of a closed line, the last not repeated."""


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


def trace_rings(mask: npt.NDArray[np.bool_]) -> list[Ring]:
    """The lines around a mask (H, W): outer ones have a positive area by the shoelace formula, holes a negative one."""
    inside = np.pad(mask, 1)
    ends: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # along each side of a pixel towards a background pixel, the nucleus on the right hand
    for row, column, start, step in (
        (-1, 0, (0, 0), (1, 0)),
        (0, 1, (1, 0), (0, 1)),
        (1, 0, (1, 1), (-1, 0)),
        (0, -1, (0, 1), (0, -1)),
    ):
        beyond = np.roll(inside, (-row, -column), (0, 1))
        ys, xs = np.nonzero(inside & ~beyond)
        for x, y in zip((xs - 1 + start[0]).tolist(), (ys - 1 + start[1]).tolist(), strict=True):
            ends.setdefault((x, y), []).append(step)
    rings = []
    while ends:
        point = next(iter(ends))
        step, line, seen = ends[point][0], [point], {point: 0}
        while True:
            steps = ends[point]
            right = (-step[1], step[0])
            step = right if len(steps) > 1 and right in steps else steps[0]
            steps.remove(step)
            if not steps:
                del ends[point]
            point = (point[0] + step[0], point[1] + step[1])
            if point in seen:  # a line that meets itself at a corner is several
                begin = seen[point]
                ring, line = line[begin:], line[: begin + 1]
                for passed in ring[1:]:
                    del seen[passed]
                rings.append(_corners(np.array(ring)))
                if begin == 0:
                    break
            else:
                seen[point] = len(line)
                line.append(point)
    return rings


def _corners(ring: Ring) -> Ring:
    """The ring without points on straight stretches."""
    before, after = ring - np.roll(ring, 1, 0), np.roll(ring, -1, 0) - ring
    return np.asarray(ring[(before != after).any(axis=1)])


def ring_area(ring: Ring) -> float:
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def group_rings(rings: Iterable[Ring]) -> list[list[Ring]]:
    """Polygons: each an outer ring and the holes in it."""
    rings = list(rings)
    polygons = [[ring] for ring in rings if ring_area(ring) > 0]
    for hole in (ring for ring in rings if ring_area(ring) < 0):
        x, y = (
            hole[np.lexsort(hole.T[::-1])[0]] + 0.5
        )  # the middle of a pixel of the hole, at its leftmost corner
        holders = [
            polygon
            for polygon in polygons
            if cv2.pointPolygonTest(polygon[0].astype(np.float32), (float(x), float(y)), False) > 0
        ]
        min(holders, key=lambda polygon: ring_area(polygon[0])).append(hole)
    return polygons


def find_polygons(nucleus: Nucleus) -> list[list[Ring]]:
    """The polygons of a nucleus in the image's coordinates."""
    corner = np.array([nucleus.left, nucleus.top])
    return group_rings([ring + corner for ring in trace_rings(nucleus.mask)])


def make_feature(nucleus: Nucleus, outlines: list[list[Ring]]) -> dict[str, Any]:
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
            "name": str(nucleus.label),
            "measurements": {"Label": nucleus.label, "Area px": int(nucleus.mask.sum())},
        },
    }


def make_roi(nucleus: Nucleus, polygons: list[list[Ring]]) -> bytes:
    """The nucleus as a region of ImageJ, named by its label; one with holes is composite."""
    import roifile

    name = f"{nucleus.label:05d}"
    roi = roifile.ImagejRoi.frompoints(
        np.concatenate([ring for polygon in polygons for ring in polygon]), name=name
    )
    roi.roitype = roifile.ROI_TYPE.POLYGON
    if len(polygons) > 1 or len(polygons[0]) > 1:
        path: list[float] = []
        for ring in (ring for polygon in polygons for ring in polygon):
            for number, (x, y) in enumerate(ring.tolist()):
                path += [1 if number else 0, x, y]
            path.append(4)
        roi.roitype, roi.n_coordinates = roifile.ROI_TYPE.RECT, 0
        roi.integer_coordinates = roi.subpixel_coordinates = None
        roi.multi_coordinates, roi.shape_roi_size = np.array(path, np.float32), len(path)
    return bytes(roi.tobytes())


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
    write_json(out / made["page"], view.model_dump(mode="json"))
    return list(made.values())


def _export_nuclei(
    picture: Picture,
    label_map: Labels,
    rois: zipfile.ZipFile,
    table: Any,
    shown: list[preview.Shape],
) -> Iterable[Any]:
    """The features of all nuclei; on the way their regions, measurements and shapes for the page are written."""
    writer = None
    for nucleus in measurements.list_nuclei(label_map, picture.pixels):
        polygons = find_polygons(nucleus)
        rois.writestr(f"{nucleus.label:05d}.roi", make_roi(nucleus, polygons))
        row = measurements.measure(nucleus, picture.pixel_size)
        if writer is None:
            writer = csv.DictWriter(table, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
        )
        if len(shown) < preview.MOST:
            shown.append(preview.make_shape(row, polygons))
        yield make_feature(nucleus, polygons)
    if writer is None:
        table.write("label,area\n")


def write_geojson(file: Any, features: Iterable[dict[str, Any]]) -> None:
    """Writes a FeatureCollection to an open text file, one feature at a time."""
    file.write('{"type": "FeatureCollection", "features": [')
    for number, feature in enumerate(features):
        file.write(("," if number else "") + "\n" + json.dumps(feature, separators=(",", ":")))
    file.write("\n]}\n")
