import csv
import errno
import json
import os
import socket
import subprocess
import sys
import zipfile
import zlib

import cv2
import numpy as np
import pytest
import roifile
import tifffile
import torch

from nuclei import read_measurements, segment, segment_folder
from nuclei.config import Config, ModelConfig, PredictionConfig, TrainingConfig
from nuclei.data.dataset import make_target
from nuclei.data.intensity import normalise, window_image
from nuclei.evaluation.scores import TunedScore
from nuclei.inference import tile_merging, tiling
from nuclei.inference.predictor import Predictor
from nuclei.models.factory import build_model
from nuclei.models.weights_file import write_weights
from nuclei.postprocessing.parameters import Parameters
from nuclei.publishing.model_card import make_card
from nuclei.segmentation import exports, results
from nuclei.segmentation import segment as module
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
    card = make_card(
        {"config": config.model_dump(), "fold": 0, "trained_on": ["nothing"]}, tuned, "nothing", "CC0-1.0"
    )
    write_weights(path, network.state_dict(), card)
    return path.parent


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    cv2.imwrite(str(images / "grey.png"), GREY)
    cv2.imwrite(str(images / "colour.jpg"), COLOUR[..., ::-1])
    tifffile.imwrite(
        images / "deep.tif", GREY.astype(np.uint16) * 16, resolution=(20_000, 20_000), resolutionunit=3
    )
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
    table = read_measurements(out)
    assert table.groupby("image").size().to_dict() == {row.image: row.nuclei for row in rows if row.nuclei}
    assert set(table.file[table.image == "deep"]) == {"deep.tif"}
    assert table.area_um2.notna().tolist() == (table.image == "deep").tolist()
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


def write_grey(path, image=GREY):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return path


def statuses(out):
    return {row["file"]: row["status"] for row in read_csv(out / "summary.csv")}


def test_a_second_folder_into_the_same_out_says_what_it_replaces_and_keeps_the_rest(weights, tmp_path, caplog):
    out = tmp_path / "out"
    for name in ("dayA/a.png", "dayA/only_a.png"):
        write_grey(tmp_path / name)
    write_grey(tmp_path / "dayB/a.png", GREY[:70])
    segment_folder(tmp_path / "dayA", out, weights, device="cpu")
    rows = segment_folder(tmp_path / "dayB", out, weights, device="cpu")
    assert [row.height for row in rows] == [70]
    assert "replaces the results of a (of" in caplog.text
    assert "keeps earlier results of only_a" in caplog.text
    assert statuses(out) == {"a.png": "done", "only_a.png": "earlier"}


def test_results_of_pages_that_are_gone_are_removed(weights, tmp_path):
    path, out = tmp_path / "images/a.tif", tmp_path / "out"
    path.parent.mkdir()
    tifffile.imwrite(path, np.stack([GREY] * 3), photometric="minisblack")
    segment_folder(path, out, weights, device="cpu")
    tifffile.imwrite(path, np.stack([GREY] * 2), photometric="minisblack")
    segment_folder(path, out, weights, device="cpu")
    for folder in ("labels", "geojson", "rois", "measurements", "overlays", "page"):
        assert [made.stem for made in sorted((out / folder).iterdir())] == ["a_page001", "a_page002"]


def test_results_of_files_with_similar_names_do_not_overwrite_each_other(weights, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    tifffile.imwrite(images / "j.tif", np.stack([GREY, GREY]), photometric="minisblack")
    tifffile.imwrite(images / "j_page001.tif", GREY[:50])
    rows = segment_folder(images, out, weights, device="cpu")
    heights = [tifffile.imread(out / f"labels/{row.image}.tif").shape[0] for row in rows]
    assert heights == [row.height for row in rows] == [90, 90, 50]


def test_a_full_disk_stops_the_run_at_once_and_says_what_is_done(weights, tmp_path, monkeypatch):
    for name in "abc":
        write_grey(tmp_path / f"images/{name}.png")
    write = exports.write_overlay
    calls = []

    def fill_up(path, *arguments):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, *arguments)

    monkeypatch.setattr(exports, "write_overlay", fill_up)
    with pytest.raises(ValueError, match="the disk is full; 1 of 3 files of this run are done"):
        segment_folder(tmp_path / "images", tmp_path / "out", weights, device="cpu")
    assert len(calls) == 2


def test_scratch_of_a_killed_run_is_removed_and_that_of_a_living_one_is_respected(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / f".scratch-{socket.gethostname()}-{ended.pid}-abc"
    left.mkdir()
    with results.open_scratch(tmp_path) as scratch:
        assert [path.name for path in tmp_path.iterdir()] == [scratch.name]
    assert not list(tmp_path.iterdir())
    (tmp_path / f".scratch-{socket.gethostname()}-{os.getppid()}-abc").mkdir()
    with pytest.raises(ValueError, match="is writing there"), results.open_scratch(tmp_path):
        pass


def test_nothing_is_found_where_the_picture_has_no_values(weights, tmp_path):
    values = GREY.astype(np.float32)
    values[:, :60] = np.nan
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values)
    label_map = segment(path, weights)
    assert not label_map[:, :60].any()
    assert label_map.max() > 0
    assert np.array_equal(np.unique(label_map), np.arange(label_map.max() + 1))
    assert np.array_equal(segment(values, weights), label_map)


def test_pixels_that_are_not_square_give_the_true_area(weights, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, imagej=True, resolution=(5, 2.5), metadata={"unit": "um"})
    (row,) = segment_folder(tmp_path / "a.tif", tmp_path / "out", weights, device="cpu")
    assert (row.pixel_size_um, row.pixel_size_y_um) == (0.2, 0.4)
    table = read_csv(tmp_path / "out/measurements/a.csv")
    assert all(float(line["area_um2"]) == pytest.approx(0.08 * float(line["area"]), rel=1e-4) for line in table)
    with tifffile.TiffFile(tmp_path / "out/labels/a.tif") as file:
        tags = file.pages[0].tags
        assert [tags[name].value for name in ("XResolution", "YResolution")] == [(50_000, 1), (25_000, 1)]


def test_a_file_name_that_is_not_utf8_is_done_like_any_other(weights, tmp_path):
    write_grey(tmp_path / "images/b\udcff.png")
    write_grey(tmp_path / "images/c.png")
    rows = segment_folder(tmp_path / "images", tmp_path / "out", weights, device="cpu")
    assert [row.file for row in rows] == ["b\\xff.png", "c.png"]
    assert list(statuses(tmp_path / "out").values()) == ["done", "done"]


def test_enormous_pictures_wait_until_the_others_are_done(weights, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    write_grey(tmp_path / "images/a.png")
    write_grey(tmp_path / "images/b.png", GREY[:50])
    monkeypatch.setattr(module, "_ENORMOUS", GREY.size - 1)
    rows = segment_folder(tmp_path / "images", tmp_path / "out", weights, device="cpu")
    assert caplog.text.index("1 of 2: b.png") < caplog.text.index("2 of 2: a.png")
    assert [row.image for row in rows] == ["a", "b"]
    assert "2 planes in 2 files (2 PNG)" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [({"channel": 0}, "counted from 1"), ({"device": "gpu"}, "DEVICE=gpu"), ({"scale": 0}, "SCALE=0")],
)
def test_an_impossible_setting_is_refused_from_python(options, said):
    with pytest.raises(ValueError, match=said):
        segment(GREY, "no weights are looked for", **options)


def test_results_do_not_go_into_the_folder_of_the_pictures(weights, tmp_path):
    write_grey(tmp_path / "a.png")
    with pytest.raises(ValueError, match="holds the pictures; give OUT= another folder"):
        segment_folder(tmp_path, tmp_path, weights)


def test_scale_leaves_the_label_map_at_the_size_of_the_picture(weights):
    doubled = segment(np.kron(GREY, np.ones((2, 2), np.uint8)), weights)
    enlarged = segment(GREY, weights, scale=2)
    assert enlarged.shape == GREY.shape
    assert ((doubled[::2, ::2] > 0) == (enlarged > 0)).mean() > 0.95


def test_what_is_left_out_by_size_is_gone_from_all_files_and_counted(folder, weights, tmp_path):
    out = tmp_path / "out"
    image = folder / "deep.tif"
    (whole,) = segment_folder(image, out, weights, keep_fibres=True)
    areas = np.bincount(tifffile.imread(out / "labels/deep.tif").ravel())[1:]
    limit = int(np.sort(areas)[-2]) + 1
    (row,) = segment_folder(image, out, weights, min_area=f"{limit * 0.25}um2", keep_fibres=True)
    assert whole.nuclei == len(areas) > 1
    assert (row.nuclei, row.left_out) == (1, len(areas) - 1)
    assert f"left out: {len(areas) - 1} below the smallest area" in row.notes
    assert len(read_csv(out / "measurements/deep.csv")) == 1
    assert f"{len(areas) - 1} objects left out by size or shape" in (out / "index.html").read_text()
    assert segment(image, weights, min_area=f"{limit * 0.25}um2").max() == 1
    with pytest.raises(ValueError, match=r"grey.png: an area of 9 µm² needs the size of a pixel"):
        segment_folder(folder / "grey.png", out, weights, min_area="9um2")


def test_results_of_the_other_mode_are_made_again_and_the_old_flag_is_understood(weights, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), GREY)
    out = tmp_path / "out"
    for setting, mode in (
        ({}, "fast"),
        ({"mode": "best"}, "best"),
        ({"fast": True}, "fast"),
        ({"fast": False}, "best"),
    ):
        segment_folder(tmp_path / "a.png", out, weights, device="cpu", **setting)
        (record,) = out.glob("records/*.json")
        assert json.loads(record.read_text())["source"]["mode"] == mode


def test_best_averages_the_flips_that_fast_leaves_out(weights, monkeypatch):
    seen = []
    forward = Predictor._forward_batch
    monkeypatch.setattr(
        Predictor, "_forward_batch", lambda self, pixels: seen.append(len(pixels)) or forward(self, pixels)
    )
    for mode, images in (("fast", 1), ("best", 2)):
        seen.clear()
        assert segment(GREY, weights, device="cpu", mode=mode).max() > 0
        assert sum(seen) == images
