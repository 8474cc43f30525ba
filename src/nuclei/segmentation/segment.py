"""People's own images: from a picture to its nuclei, and from a folder to files that other programs open."""

import csv
import logging
import zipfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nuclei.arrays import LabelMap
from nuclei.devices import choose_device
from nuclei.errors import UserError
from nuclei.inference import tile_merging, tiling
from nuclei.inference.weights import Weights, find_best, load_weights
from nuclei.io import microscopy
from nuclei.io.files import atomic_path, read_json, release, sha256, write_json
from nuclei.io.microscopy import Picture
from nuclei.postprocessing.watershed import segment_maps
from nuclei.segmentation import exports, measurements

log = logging.getLogger(__name__)

_IN_MEMORY = 2**28
"""Bytes beyond which an array lies on the disk."""


def segment(
    image: npt.NDArray[Any] | Path | str,
    weights: Path | str | None = None,
    channel: int | None = None,
    device: str = "auto",
) -> LabelMap:
    """Label map (H, W) int32 of an image, 0 background and 1..N nuclei.

    `image` is (H, W), (H, W, 3) or (H, W, 4) of any type of numbers, or the path of a PNG, JPEG or TIFF with one plane.
    `weights` are a file or folder of them, or the card of an ensemble (.json); absent, those with the best score that
    come with the project.

    Raises:
        UserError: an image that cannot be read or has another shape; several planes; no weights.
    """
    if isinstance(image, Path | str):
        planes = list(microscopy.read_pictures(Path(image), Path(image).stem, channel))
        if len(planes) > 1:
            raise UserError(f"{image}: a stack of {len(planes)} planes; give one as an array, or use segment_folder")
        image = planes[0].pixels
    elif channel is not None:
        image = image[..., channel - 1]
    loaded = load_weights(weights or find_best(), choose_device(device))
    return np.array(_segment_pixels(image, loaded, None)[0])


def segment_folder(
    images: Path,
    out: Path,
    weights: Path | str | None = None,
    channel: int | None = None,
    pixel_size: float | None = None,
    device: str = "auto",
    max_pixels: int = microscopy.MAX_PIXELS,
) -> list[dict[str, Any]]:
    """Segments the pictures of a folder (or one file) and returns the rows of `<out>/summary.csv`, one a plane.

    Each plane gets labels/*.tif, geojson/*.geojson, rois/*.zip, measurements/*.csv, overlays/*.png and, last,
    records/*.json, which says from what they were made: a later call does only what is missing or has changed.
    `pixel_size` is in micrometres, that of the file where absent. `channel` counts from 1.

    Raises:
        UserError: no pictures, no weights; at the end, when all others are done, the files that failed and why.
    """
    found = microscopy.find_pictures(images)
    loaded = load_weights(weights or find_best(), choose_device(device))
    settings = {"weights": loaded.digest, "channel": channel, "pixel_size": pixel_size}
    rows: list[dict[str, Any]] = []
    failed = []
    for name, path in tqdm(found.items(), desc="segment", unit="file"):
        try:
            source = {"file": path.name, "sha256": sha256(path), **settings}
            done = _read_records(out, name, source)
            rows += done or _segment_file(path, name, loaded, out, source, max_pixels)
        except (ValueError, OSError, MemoryError) as error:
            failed.append(f"{path.name}: {str(error).removeprefix(f'{path}: ')}")
            log.warning("failed: %s", failed[-1])
    _write_table(out / "summary.csv", rows, ["image", "file", "height", "width", "nuclei", "pixel_size_um"])
    if failed:
        reasons = "\n  ".join(failed)
        raise UserError(
            f"{len(failed)} of {len(found)} files failed, the others are in {out}:\n  {reasons}\n"
            "mend or remove them and run the same command again; it does only what is missing"
        )
    return rows


def _read_records(out: Path, name: str, source: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the summary of a file that is done already from the same source and settings; else none."""
    path = out / "records" / f"{name}.json"
    if not path.is_file():
        return []
    record = read_json(path)
    whole = all((out / made).is_file() for made in record["made"])
    return list(record["rows"]) if record["source"] == source and whole else []


def _segment_file(
    path: Path, name: str, weights: Weights, out: Path, source: dict[str, Any], max_pixels: int
) -> list[dict[str, Any]]:
    rows, made = [], []
    for picture in microscopy.read_pictures(path, name, source["channel"], max_pixels):
        size = source["pixel_size"] or picture.pixel_size
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".scratch-", dir=out) as scratch:
            label_map, count = _segment_pixels(picture.pixels, weights, Path(scratch))
            made += _export(Picture(picture.name, picture.pixels, size), label_map, count, out)
        height, width = label_map.shape
        row = {"image": picture.name, "file": path.name, "height": height, "width": width, "nuclei": count}
        rows.append(row | {"pixel_size_um": size})
    write_json(out / "records" / f"{name}.json", {"source": source, "rows": rows, "made": made})
    return rows


def _segment_pixels(pixels: npt.NDArray[Any], weights: Weights, scratch: Path | None) -> tuple[LabelMap, int]:
    """Label map of an image and its number of nuclei; large arrays lie in `scratch`."""
    shape = (pixels.shape[0], pixels.shape[1])
    if shape[0] * shape[1] <= tiling.WHOLE:
        label_map = segment_maps(weights(pixels), weights.parameters)
        return label_map, int(label_map.max(initial=0))
    maps = _allocate((3, *shape), np.uint8, scratch, "maps")
    tiles = tiling.predict_tiles(weights.predictors, pixels, shares=weights.weights)
    for tile, part in tqdm(tiles, total=len(tiling.list_tiles(shape)), desc="tiles", unit="tile", leave=False):
        maps[(slice(None), *tile.slices)] = part
        release(maps)
        release(pixels)
    if shape[0] * shape[1] <= tile_merging.WHOLE:
        label_map = segment_maps(maps, weights.parameters)
        return label_map, int(label_map.max(initial=0))
    label_map = _allocate(shape, np.int32, scratch, "labels")
    return label_map, tile_merging.segment_tiles(maps, weights.parameters, label_map)


def _allocate(shape: tuple[int, ...], kind: Any, scratch: Path | None, name: str) -> Any:
    if scratch is None or np.prod(shape) * np.dtype(kind).itemsize <= _IN_MEMORY:
        return np.zeros(shape, kind)
    return np.memmap(scratch / name, kind, "w+", shape=shape)


def _export(picture: Picture, label_map: LabelMap, count: int, out: Path) -> list[str]:
    """Writes all files of a plane and returns their paths under `out`."""
    name = picture.name
    folders = {"labels": "tif", "geojson": "geojson", "rois": "zip", "measurements": "csv", "overlays": "png"}
    made = {folder: f"{folder}/{name}.{ending}" for folder, ending in folders.items()}
    exports.write_label_tiff(out / made["labels"], label_map, count, picture.pixel_size)
    exports.write_overlay(out / made["overlays"], label_map, picture.pixels)
    with ExitStack() as stack:
        places = {
            folder: stack.enter_context(atomic_path(out / made[folder]))
            for folder in folders
            if folder in ("geojson", "rois", "measurements")
        }
        rois = stack.enter_context(zipfile.ZipFile(places["rois"], "w", zipfile.ZIP_DEFLATED))
        table = stack.enter_context(open(places["measurements"], "w", encoding="utf-8", newline=""))
        features = stack.enter_context(open(places["geojson"], "w", encoding="utf-8"))
        exports.write_geojson(features, _export_nuclei(picture, label_map, rois, table))
    return list(made.values())


def _export_nuclei(picture: Picture, label_map: LabelMap, rois: zipfile.ZipFile, table: Any) -> Iterable[Any]:
    """The features of all nuclei; on the way their regions and measurements are written."""
    writer = None
    for nucleus in measurements.list_nuclei(label_map, picture.pixels):
        polygons = exports.find_polygons(nucleus)
        rois.writestr(f"{nucleus.label:05d}.roi", exports.make_roi(nucleus, polygons))
        row = measurements.measure(nucleus, picture.pixel_size)
        if writer is None:
            writer = csv.DictWriter(table, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
        yield exports.make_feature(nucleus, polygons)
    if writer is None:
        table.write("label,area\n")


def _write_table(path: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
