"""Whole runs against a limit: tuning on all images, an image of 20,000 x 20,000 pixels."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
import torch
from data import Data, blurred_maps
from rows import ROOT, Trainer

from nuclei.config import Config, IntensityConfig, ModelConfig, PredictionConfig, TrainingConfig
from nuclei.data.dataset import Crops
from nuclei.devices import autocast_type
from nuclei.evaluation.metric import average_precision
from nuclei.evaluation.tuning import cross_validate
from nuclei.inference.predictor import Predictor
from nuclei.inference.tile_merging import SIDE as STITCHED
from nuclei.inference.tiling import Box, list_tiles, measure_image, predict_tile
from nuclei.io.files import read_json, write_csv
from nuclei.io.probability_maps import Maps, write_maps
from nuclei.io.tables import read_splits
from nuclei.models.weights_file import VERSION, Card, write_weights
from nuclei.postprocessing.parameters import Parameters, Tuned
from nuclei.postprocessing.watershed import segment_maps

SIDE, PLANE, STEPS, WORKERS = 20_000, 4_000, 150, 2
WINDOW, NEAR = 1024, 64
"""Sides of the pieces predicted where tiles meet, and the distance of a nucleus to a seam."""


def search(data: Data, scratch: Path, maps: Path | None) -> list[dict[str, Any]]:
    """Tuning of post-processing on all training images: out-of-fold maps or blurred annotation."""
    table, cv = read_splits(data.splits), None
    if maps is None:
        ids = sorted(table.image_id)
        maps = scratch / "oof.npz"
        write_maps(
            maps, ((name, blurred_maps(data.images.label_map(name), place)) for place, name in enumerate(ids))
        )
    else:
        table = table[table.image_id.isin(Maps(maps).ids)]
        cv = maps.parent / "cv.json"
    write_csv(scratch / "splits.csv", table)
    begun = time.perf_counter()
    found = cross_validate(maps.parent.name, maps, data.processed, scratch / "splits.csv", WORKERS)
    seconds = time.perf_counter() - begun
    kind = "blurred annotation"
    if cv and cv.is_file():
        assert found.to_dict() == read_json(cv)
        kind = f"maps of {maps.parent.name}; the same parameters and scores as its cv.json"
    name = f"search for the post-processing, {len(table)} images, {WORKERS} processes ({kind})"
    return [{"name": name, "seconds": seconds, "bar": 300.0, "mib": None, "mib_bar": None}]


def large(data: Data, scratch: Path, side: int = SIDE) -> list[dict[str, Any]]:
    """`segment.py` on a mosaic of the sample, small network; seams compared with whole windows."""
    predictor = _train(data)
    # a small network is unsure; relative area and certainty are the whole image's, not a window's
    parameters = Parameters(
        foreground_threshold=0.5,
        min_mean_probability=0.0,
        min_seed_peak=0.0,
        min_relative_area=0.0,
        min_certainty=1.0,
    )
    config = predictor.config.model_dump(mode="json")
    card = Card(
        version=VERSION,
        name=predictor.config.name,
        fold=None,
        config=config,
        parameters=Tuned(parameters, {}),
        score=0.0,
        images=len(data.ids),
        trained_on=[],
        data=data.name,
        licence="",
    )
    write_weights(scratch / "net.safetensors", predictor.model.state_dict(), card)
    image = _write_mosaic(scratch / "mosaic.tif", data, side)
    run = _segment(scratch / "mosaic.tif", scratch / "out", "best", scratch / "net.safetensors")
    assert run.labels.shape == (side, side), run.labels.shape
    seams = _check_seams(image, run.labels, predictor, parameters)
    name = f"`segment.py`, {side:,} x {side:,} pixels, a UNet of width {config['model']['width']}"
    name += f", no test-time augmentation ({run.nuclei:,} nuclei, all files written; {seams})"
    return [{"name": name, "seconds": run.seconds, "bar": None, "mib": run.mib, "mib_bar": 4000.0}]


def plane(data: Data, scratch: Path, side: int = PLANE) -> list[dict[str, Any]]:
    """`segment.py` in mode fast on a mosaic of the sample, with the packaged network."""
    _write_mosaic(scratch / "mosaic.tif", data, side)
    run = _segment(scratch / "mosaic.tif", scratch / "out", "fast")
    assert run.labels.shape == (side, side), run.labels.shape
    name = f"`segment.py`, mode fast, {side:,} x {side:,} pixels ({run.nuclei:,} nuclei, all files written; "
    name += (
        f"{run.processor:.0f} s of the processor, {run.processor / side**2 * 2**20:.2f} for 1024 x 1024 pixels)"
    )
    return [{"name": name, "seconds": run.seconds, "bar": None, "mib": run.mib, "mib_bar": 4000.0}]


class Run(NamedTuple):
    """A run of `segment.py` on one plane: wall-clock and processor seconds, memory, output."""

    seconds: float
    processor: float
    mib: float
    labels: np.ndarray
    nuclei: int


def _segment(picture: Path, out: Path, mode: str, weights: Path | None = None) -> Run:
    command: list[Any] = ["scripts/segment.py", "--images", picture, "--out", out, "--device", "cpu"]
    command += ["--mode", mode, *(["--weights", weights] if weights else [])]
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    if status:
        raise ValueError(f"segment.py ended with status {status}")
    labels = tifffile.imread(out / f"labels/{picture.stem}.tif", out="memmap")
    with open(out / f"geojson/{picture.stem}.geojson", encoding="utf-8") as lines:
        features = sum('"type":"Feature"' in line for line in lines)
    assert features == labels.max(), (features, labels.max())
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, labels, features)


def _train(data: Data) -> Predictor:
    """A small network after STEPS steps on the sample, which finds most nuclei of most images."""
    config = Config(
        name="large",
        model=ModelConfig(width=8, depth=3, packing=2),
        intensity=IntensityConfig(window="none"),
        prediction=PredictionConfig(flips=1),
        training=TrainingConfig(steps=STEPS, steps_per_epoch=STEPS, batch_size=8, crop=128, learning_rate=5e-3),
    )
    device = torch.device("cpu")
    trainer = Trainer(config, Crops(data.images, data.ids, config, 0), device, None, torch.channels_last)
    trainer.train(STEPS)
    # as segment.py has it: in half precision, and in the type that suits the processor
    network = trainer.model.half().float()
    return Predictor(network, config, device, autocast_type("auto", device))


def _write_mosaic(path: Path, data: Data, side: int) -> np.ndarray:
    """Squares of 256 pixels of the sample's images, drawn and turned at random, on disk."""
    random, square = np.random.default_rng(0), 256
    pictures = [data.images.image(image_id) for image_id in data.ids]
    pictures = [picture[:square, :square] for picture in pictures if min(picture.shape[:2]) >= square]
    mosaic = tifffile.memmap(path, shape=(side, side, 3), dtype=np.uint8, photometric="rgb")
    for top in range(0, side, square):
        for left in range(0, side, square):
            place = mosaic[top : top + square, left : left + square]
            turned = np.rot90(pictures[random.integers(len(pictures))], random.integers(4))
            place[:] = turned[: place.shape[0], : place.shape[1]]
    mosaic.flush()
    return mosaic


def _check_seams(image: np.ndarray, labels: np.ndarray, predictor: Predictor, parameters: Parameters) -> str:
    """Nuclei near seams against those of windows predicted and segmented in one piece."""
    shape, scene, scores, counts = labels.shape, measure_image(predictor, image), [], 0
    predicted, stitched = list_tiles(shape), list_tiles(shape, STITCHED)
    for tile in (*predicted[len(predicted) // 3 :: len(predicted) // 5], *stitched[len(stitched) // 3 :: 80]):
        row, column = (max(WINDOW // 2, edge // 16 * 16) for edge in (tile.top, tile.left))
        half = WINDOW // 2
        window = Box(row - half, column - half, row + half, column + half)
        maps = predict_tile(predictor, scene, (1.0,), window)
        whole = segment_maps(maps, parameters)
        seams = np.zeros(whole.shape, bool)
        middle = slice(WINDOW // 4, -WINDOW // 4)  # farther out the window's own edge tells
        for part in seams, seams.T:
            part[WINDOW // 2 - NEAR : WINDOW // 2 + NEAR, middle] = True
        near = np.unique(whole[seams])
        tiled = np.array(labels[window.slices], np.int32)
        near_tiled = np.unique(tiled[seams])
        scores.append(
            average_precision(whole * np.isin(whole, near), tiled * np.isin(tiled, near_tiled)).mean()
        )
        counts += np.count_nonzero(near)
    return f"AP {np.mean(scores):.4f} of {counts} nuclei at seams by windows predicted in one piece"
