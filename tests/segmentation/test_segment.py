import csv
import json
import zipfile
import zlib

import cv2
import numpy as np
import pytest
import roifile
import tifffile
import torch

from nuclei import segment, segment_folder
from nuclei.config import Config, ModelConfig, PredictionConfig, TrainingConfig
from nuclei.data.dataset import make_target
from nuclei.data.intensity import normalise, window_image
from nuclei.evaluation.scores import TunedScore
from nuclei.inference import tile_merging, tiling
from nuclei.models.factory import build_model
from nuclei.models.weights_file import write_weights
from nuclei.postprocessing.parameters import Parameters
from nuclei.publishing.model_card import make_card
from nuclei.synthetic.images import make_image

GREY = make_image("small_fluorescence", 0, 90, 130)[0][..., 0]
COLOUR = make_image("purple_tissue", 1, 80, 100)[0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A tiny network that has seen one image, often."""
    torch.manual_seed(1)
    config = Config(
        name="tiny",
        model=ModelConfig(width=4, depth=2),
        training=TrainingConfig(precision="32-true"),
        prediction=PredictionConfig(flips=2),
    )
    network = build_model(config.model, 3)
    image, label_map = make_image("small_fluorescence", 0, 90, 130)
    pixels = torch.from_numpy(normalise(window_image(image, config.intensity), "half", 3))[None]
    target = torch.from_numpy(make_target(label_map, config.target))[None]
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(network(pixels), target).backward()
        optimizer.step()
    parameters = Parameters(
        foreground_threshold=0.5, seed_threshold=0.2, min_mean_probability=0.5, min_relative_area=0.0
    )
    tuned = TunedScore(experiment="tiny", parameters=parameters.to_dict(), score=0.1, n_images=1)
    path = tmp_path_factory.mktemp("weights") / "tiny" / "fold_0.safetensors"
    card = make_card({"config": config.model_dump(), "fold": 0, "trained_on": ["nothing"]}, tuned, "nothing", "CC0-1.0")
    write_weights(path, network.state_dict(), card)
    return path.parent


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    cv2.imwrite(str(images / "grey.png"), GREY)
    cv2.imwrite(str(images / "colour.jpg"), COLOUR[..., ::-1])
    tifffile.imwrite(images / "deep.tif", GREY.astype(np.uint16) * 16, resolution=(20_000, 20_000), resolutionunit=3)
    tifffile.imwrite(images / "float.tif", GREY.astype(np.float32) / 7, compression="lzw")
    tifffile.imwrite(images / "stack.tif", np.stack([GREY, 255 - GREY]), photometric="minisblack")
    (images / "notes.txt").write_text("no picture")
    return images


def read_csv(path):
    return list(csv.DictReader(path.open()))


def test_a_folder_of_all_kinds_becomes_files_that_agree_with_each_other(folder, weights, tmp_path):
    out = tmp_path / "out"
    rows = segment_folder(folder, out, weights, device="cpu")
    names = ["colour", "deep", "float", "grey", "stack_page001", "stack_page002"]
    assert (
        [row.image for row in rows]
        == names
        == [row["image"] for row in read_csv(out / "summary.csv") if row["status"] == "done"]
    )
    assert sum(row.nuclei for row in rows) > 5
    for row in rows:
        label_map = tifffile.imread(out / f"labels/{row.image}.tif")
        assert label_map.shape == (row.height, row.width)
        labels = list(range(1, row.nuclei + 1))
        assert sorted(set(np.unique(label_map).tolist()) - {0}) == labels
        features = json.loads((out / f"geojson/{row.image}.geojson").read_text())["features"]
        assert [feature["properties"]["measurements"]["Label"] for feature in features] == labels
        areas = np.bincount(label_map.ravel(), minlength=len(labels) + 1)[1:].tolist()
        table = read_csv(out / f"measurements/{row.image}.csv")
        assert [float(line["area"]) for line in table] == areas
        assert ("area_um2" in table[0]) == (row.image == "deep")
        with zipfile.ZipFile(out / f"rois/{row.image}.zip") as archive:
            rois = [roifile.ImagejRoi.frombytes(archive.read(name)) for name in archive.namelist()]
        assert [int(roi.name) for roi in rois] == labels
        assert cv2.imread(str(out / f"overlays/{row.image}.png")).shape[:2] == label_map.shape
    assert not list(out.glob(".scratch*"))
    with tifffile.TiffFile(out / "labels/deep.tif") as file:
        assert file.pages[0].tags["XResolution"].value == (20_000, 1)


def test_scaling_16_bits_does_not_change_what_is_found(folder, weights):
    assert np.array_equal(segment(folder / "deep.tif", weights), segment(GREY, weights))
    assert np.array_equal(segment(folder / "grey.png", weights), segment(GREY, weights))


def test_a_rerun_does_only_what_is_missing_or_changed(folder, weights, tmp_path):
    out = tmp_path / "out"
    rows = segment_folder(folder, out, weights, device="cpu")
    written = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    (out / "geojson/grey.geojson").unlink()
    cv2.imwrite(str(folder / "colour.jpg"), COLOUR[:70, :, ::-1])
    again = segment_folder(folder, out, weights, device="cpu")
    anew = {path.stem for path, time in written.items() if not path.exists() or path.stat().st_mtime_ns != time}
    assert anew == {"grey", "colour"}
    assert [row.height for row in again] == [70, *(row.height for row in rows[1:])]
    segment_folder(folder, out, weights, pixel_size=0.5, device="cpu")
    assert "area_um2" in (out / "measurements/grey.csv").read_text()


def test_broken_files_are_listed_at_the_end_and_the_others_are_done(folder, weights, tmp_path):
    (folder / "broken.png").write_bytes((folder / "grey.png").read_bytes()[:2000])
    (folder / "cut.jpg").write_bytes((folder / "colour.jpg").read_bytes()[:1500])
    (folder / "empty.tif").write_bytes(b"")
    bomb = bytearray((folder / "grey.png").read_bytes())
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(bomb)
    with pytest.raises(ValueError, match=r"4 of 9 files failed") as caught:
        segment_folder(folder, tmp_path / "out", weights, device="cpu")
    said = str(caught.value)
    for name in ("broken.png", "cut.jpg", "empty.tif", "bomb.png"):
        assert name in said
    assert "60000 x 60000 pixels" in said
    statuses = [row["status"] for row in read_csv(tmp_path / "out/summary.csv")]
    assert [statuses.count(status) for status in ("done", "failed", "left aside")] == [6, 4, 1]


def test_a_channel_is_chosen_by_its_number_and_must_be_where_there_are_several(weights, tmp_path):
    planes = np.stack([np.zeros_like(GREY), GREY])
    path = tmp_path / "channels.tif"
    tifffile.imwrite(path, planes, imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(ValueError, match="has 2 channels; say which shows the nuclei"):
        segment(path, weights)
    assert np.array_equal(segment(path, weights, channel=2), segment(GREY, weights))
    with pytest.raises(ValueError, match="CHANNEL=3 must be from 1 to 2"):
        segment(path, weights, channel=3)


def test_a_large_image_has_the_nuclei_of_a_small_one(weights, monkeypatch):
    whole = segment(GREY, weights)
    monkeypatch.setattr(tiling, "WHOLE", 1)
    monkeypatch.setattr(tiling.list_tiles, "__defaults__", (50,))
    tiled = segment(GREY, weights)
    assert abs(int(tiled.max()) - int(whole.max())) <= 1
    assert ((tiled > 0) == (whole > 0)).mean() > 0.995
    monkeypatch.setattr(tile_merging, "WHOLE", 1)
    stitched = segment(GREY, weights)
    assert np.array_equal(stitched > 0, tiled > 0)
    assert stitched.max() == tiled.max()


def test_the_same_stem_twice_keeps_both(weights, tmp_path):
    for name in ("a.png", "a.tif"):
        cv2.imwrite(str(tmp_path / name), GREY)
    rows = segment_folder(tmp_path, tmp_path / "out", weights, device="cpu")
    assert [row.image for row in rows] == ["a.png", "a.tif"]


def test_a_folder_without_pictures_is_refused(weights, tmp_path):
    with pytest.raises(ValueError, match="no pictures there"):
        segment_folder(tmp_path, tmp_path / "out", weights)
