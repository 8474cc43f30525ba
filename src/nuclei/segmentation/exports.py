"""Nuclei in the forms that other programs open: label map, GeoJSON, ImageJ's regions, measurements, an overlay.

Outlines run along the edges of pixels, with x to the right and y down from the image's corner, so that filling one
gives back the nucleus pixel by pixel.
"""

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nuclei.arrays import Labels
from nuclei.data.intensity import apply_limits, display_limits
from nuclei.io.files import atomic_path
from nuclei.segmentation.measurements import Nucleus

Ring = npt.NDArray[np.int64]
"""Corners (N, 2), x and y, of a closed line, the last not repeated."""


OVERLAY_SIDE = 4096
"""Pixels of an overlay's longer side at most; larger images are thinned out by a whole number."""


_ROWS = 256


_YELLOW = (255, 220, 0)


def write_label_tiff(path: Path | str, label_map: Labels, nuclei: int, pixel_size: float | None) -> None:
    """Writes a label map as TIFF in strips: 16 bits, 32 only past 65,535 nuclei; `pixel_size` is in micrometres."""
    import tifffile

    kind = np.uint16 if nuclei <= np.iinfo(np.uint16).max else np.uint32
    height, width = label_map.shape
    strips = (
        zlib.compress(np.ascontiguousarray(label_map[top : top + _ROWS], kind).tobytes(), 6)
        for top in range(0, height, _ROWS)
    )
    options: dict[str, Any] = {}
    if pixel_size:
        options = {"resolution": (10_000 / pixel_size, 10_000 / pixel_size), "resolutionunit": "CENTIMETER"}
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
        x, y = hole[np.lexsort(hole.T[::-1])[0]] + 0.5  # the middle of a pixel of the hole, at its leftmost corner
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
    roi = roifile.ImagejRoi.frompoints(np.concatenate([ring for polygon in polygons for ring in polygon]), name=name)
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
    """Writes the image as PNG with a line along the inner rim of each nucleus."""
    from skimage.segmentation import find_boundaries

    step = -(-max(label_map.shape) // OVERLAY_SIDE)
    picture = apply_limits(np.ascontiguousarray(pixels[::step, ::step]), display_limits(pixels)).copy()
    picture[find_boundaries(np.ascontiguousarray(label_map[::step, ::step]), mode="inner")] = _YELLOW
    done, encoded = cv2.imencode(".png", picture[..., ::-1])
    assert done, picture.shape
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def write_geojson(file: Any, features: Iterable[dict[str, Any]]) -> None:
    """Writes a FeatureCollection to an open text file, one feature at a time."""
    file.write('{"type": "FeatureCollection", "features": [')
    for number, feature in enumerate(features):
        file.write(("," if number else "") + "\n" + json.dumps(feature, separators=(",", ":")))
    file.write("\n]}\n")
