"""The archive's peculiarities are read, resolved and named; the stages run on a small archive."""

import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from script_runs import run_script

from nuclei.data.masks import merge_masks, read_annotation
from nuclei.data.modality import MODALITIES, find_modality, typical_diameter
from nuclei.data.prepare import (
    KNOWN_BAD,
    build_index,
    describe_images,
    find_images,
    prepare_image,
    read_archive_image,
    remove_unlisted_files,
)
from nuclei.data.prepared_images import Images
from nuclei.io import files
from nuclei.io.images import read_image
from nuclei.io.tables import INDEX_COLUMNS, MASK_CONFLICT_COLUMNS, SPLIT_COLUMNS, read_splits, read_table

ROOT = Path(__file__).parents[2]


def write_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def draw_discs(diameter, size, background=(15, 15, 15), ink=(180, 180, 180), count=3):
    """Image (size, size, 3) with noise, and label map with count x count discs."""
    label_map = np.zeros((size, size), np.int32)
    step = size // count
    for k in range(count * count):
        centre = (step // 2 + k % count * step, step // 2 + k // count * step)
        cv2.circle(label_map, centre, diameter // 2, k + 1, -1)
    image = np.where(label_map[..., None] > 0, np.array(ink), np.array(background))
    noise = np.random.default_rng(diameter).normal(0, 2, (size, size, 1))
    return np.clip(image + noise, 0, 255).astype(np.uint8), label_map


def write_train(raw, image_id, image, label_map):
    write_png(raw / "stage1_train" / image_id / "images" / f"{image_id}.png", image[..., ::-1])
    for label in range(1, int(label_map.max()) + 1):
        mask = (label_map == label).astype(np.uint8) * 255
        write_png(raw / "stage1_train" / image_id / "masks" / f"mask{label:03d}.png", mask)
    (raw / "stage1_train" / image_id / "masks").mkdir(exist_ok=True)


def write_archive(raw, train=8, test=2):
    """A small archive of images of all looks, none alike."""
    looks = [
        {"diameter": 10, "size": 96},
        {"diameter": 22, "size": 96},
        {"diameter": 12, "size": 96, "background": (180, 160, 210), "ink": (90, 50, 150)},
        {"diameter": 12, "size": 96, "background": (220, 220, 220), "ink": (90, 90, 90)},
    ]
    for k in range(train + test):
        image, label_map = draw_discs(**looks[k % 4], count=2 + k % 2)
        image = np.roll(image, 5 * k, axis=0)
        label_map = np.roll(label_map, 5 * k, axis=0)
        if k < train:
            write_train(raw, f"train{k:02d}", image, label_map)
        else:
            write_png(raw / "stage1_test" / f"test{k}" / "images" / f"test{k}.png", image[..., ::-1])
    return raw


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# Images


@pytest.mark.parametrize("channels", ["grey", "rgb", "rgba"])
@pytest.mark.parametrize("shape", [(7, 12), (33, 1)])
def test_images_of_any_channels_and_size_are_read_as_rgb(tmp_path, channels, shape):
    colour = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    alpha = np.full((*shape, 1), 255, np.uint8)
    stored = {"grey": colour[..., 0], "rgb": colour[..., ::-1], "rgba": np.dstack([colour[..., ::-1], alpha])}
    write_png(tmp_path / "stage1_test/a/images/a.png", stored[channels])
    expected = np.repeat(colour[..., :1], 3, 2) if channels == "grey" else colour
    image = read_archive_image(tmp_path, "test", "a")
    assert image.dtype == np.uint8
    assert (image == expected).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_kept_and_a_hot_pixel_does_not_hide_the_nuclei(tmp_path, channels):
    rows, columns = np.ogrid[:64, :64]
    nuclei = sum((rows - y) ** 2 + (columns - x) ** 2 <= 49 for y, x in ((16, 16), (16, 48), (44, 30)))
    pixels = (100 + 200 * np.repeat(nuclei[..., None], channels, 2)).astype(np.uint16)
    pixels[0, 0] = 65_535
    write_png(tmp_path / "stage1_test/a/images/a.png", pixels)
    prepared = prepare_image(tmp_path, tmp_path / "out", "test", "a")
    image = read_image(tmp_path / "out" / str(prepared.row["image"]))
    assert image.dtype == np.uint16
    assert (image == pixels).all()
    assert prepared.row["modality"] == "large_fluorescence"


def test_an_enormous_image_is_refused_from_its_header(tmp_path):
    path = write_png(tmp_path / "stage1_test/a/images/a.png", np.zeros((4, 4), np.uint8))
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 20_000, 5_001)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png: 20000x5001 pixels, more than the limit of 100,000,000"):
        read_archive_image(tmp_path, "test", "a")


@pytest.mark.parametrize(
    ("content", "message"), [(b"GIF89a", "not a PNG"), (b"", "not a PNG"), (None, "damaged")]
)
def test_a_file_that_is_no_image_is_named(tmp_path, content, message):
    path = write_png(tmp_path / "stage1_test/a/images/a.png", np.arange(256, dtype=np.uint8).reshape(16, 16))
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    with pytest.raises(ValueError, match=rf"a\.png: .*{message}"):
        read_archive_image(tmp_path, "test", "a")


def test_a_missing_image_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"stage1_train: no image folders"):
        find_images(tmp_path, "train")
    (tmp_path / "stage1_train" / "abc").mkdir(parents=True)
    (tmp_path / "stage1_train" / "notes.txt").write_text("no image")
    assert find_images(tmp_path, "train") == ["abc"]
    with pytest.raises(ValueError, match=r"abc\.png: the image is missing; unpack stage1_train\.zip again"):
        read_archive_image(tmp_path, "train", "abc")


# Masks


def as_masks(*rows):
    return [np.array([[character == "#" for character in row]]) for row in rows]


@pytest.mark.parametrize(
    ("rows", "expected", "contested", "left_out"),
    [
        (("##..", "...#"), [1, 1, 0, 2], 0, []),
        (("####", ".##."), [1, 2, 2, 1], 2, []),  # the small nucleus inside a large one stays whole
        ((".##.", "####"), [2, 1, 1, 2], 2, []),
        (("##..", ".##."), [1, 1, 2, 0], 1, []),  # among equals the first
        (("#...", "....", "...#"), [1, 0, 0, 2], 0, ["m1"]),  # an empty mask; the numbers close up
        (("####", "##..", "..##"), [1, 1, 2, 2], 4, ["m0"]),  # nothing left of the largest
        ((".##.", ".##."), [0, 1, 1, 0], 2, ["m1"]),  # the same nucleus twice
        ((), [0, 0, 0, 0], 0, []),
    ],
)
def test_contested_pixels_go_to_the_smaller_nucleus(rows, expected, contested, left_out):
    annotation = merge_masks([f"m{k}" for k in range(len(rows))], as_masks(*rows), (1, 4))
    assert annotation.label_map.tolist() == [expected]
    assert annotation.label_map.dtype == np.int32
    assert (annotation.contested_pixels, annotation.left_out) == (contested, tuple(left_out))


@settings(deadline=None)  # the first example also pays for imports
@given(st.lists(st.lists(st.booleans(), min_size=12, max_size=12), max_size=6))
def test_merged_masks_lose_no_pixel_and_each_label_is_part_of_one_mask(rows):
    masks = [np.array(row).reshape(3, 4) for row in rows]
    annotation = merge_masks([str(k) for k in range(len(masks))], masks, (3, 4))
    union = np.any(masks, axis=0) if masks else np.zeros((3, 4), bool)
    assert ((annotation.label_map > 0) == union).all()
    kept = [mask for k, mask in enumerate(masks) if str(k) not in annotation.left_out]
    assert annotation.label_map.max() == len(kept)
    for label, mask in enumerate(kept, start=1):
        assert (annotation.label_map == label).any()
        assert mask[annotation.label_map == label].all()


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path):
    image, label_map = draw_discs(20, 60)
    write_train(tmp_path, "a", image, label_map)
    write_png(tmp_path / "stage1_train/a/masks/mask002.png", np.full((59, 60), 255, np.uint8))
    with pytest.raises(ValueError, match=r"mask002\.png: the mask is 59x60 .* its image 60x60; unpack"):
        read_annotation(tmp_path / "stage1_train/a/masks", (60, 60))


def test_missing_masks_are_refused(tmp_path):
    write_png(tmp_path / "stage1_train/a/images/a.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(ValueError, match=r"masks: the masks are missing; unpack stage1_train\.zip again"):
        read_annotation(tmp_path / "stage1_train/a/masks", (9, 9))


@pytest.mark.parametrize("stored", ["zero and one", "rgba"])
def test_masks_are_read_however_they_are_stored(tmp_path, stored):
    mask = np.zeros((6, 5), np.uint8)
    mask[2:4, 1:3] = 1
    rgba = np.dstack([mask * 255] * 3 + [np.full_like(mask, 255)])
    write_png(tmp_path / "stage1_train/a/masks/m.png", mask if stored == "zero and one" else rgba)
    assert (read_annotation(tmp_path / "stage1_train/a/masks", (6, 5)).label_map == mask).all()


# Modalities

LOOKS = {
    "small_fluorescence": {"diameter": 14, "size": 256},
    "large_fluorescence": {"diameter": 44, "size": 360},
    "purple_tissue": {"diameter": 20, "size": 256, "background": (176, 158, 208), "ink": (90, 40, 150)},
    "pink_purple_tissue": {"diameter": 20, "size": 256, "background": (220, 150, 200), "ink": (120, 60, 150)},
    "grey_tissue": {"diameter": 14, "size": 256, "background": (225, 225, 225), "ink": (80, 80, 80)},
}


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_modality_is_known_by_its_looks_whichever_way_up(modality):
    image, _ = draw_discs(**LOOKS[modality])
    assert {find_modality(view) for view in (image, image[::-1], image.transpose(1, 0, 2))} == {modality}


def test_yellow_light_is_not_pink():
    image, _ = draw_discs(20, 256, background=(235, 235, 205), ink=(90, 40, 150))
    assert find_modality(image) == "purple_tissue"


def test_the_typical_diameter_is_the_nuclei_not_the_glare_or_the_specks():
    image, _ = draw_discs(20, 300, count=2)
    for top in (0, 100, 140, 180, 260):  # more strips of glare than nuclei
        image[top : top + 25] = 200
    image[40:60:4, ::5] = 200
    assert typical_diameter(image[..., 0].copy()) == pytest.approx(20, abs=2)
    assert typical_diameter(np.zeros((50, 50), np.uint8)) == 0


# Prepared files


def test_prepared_files_hold_what_the_archive_holds(tmp_path):
    image, label_map = draw_discs(20, 90, (200, 180, 220), (90, 40, 150))
    write_train(tmp_path / "raw", "a", image, label_map)
    prepared = [prepare_image(tmp_path / "raw", tmp_path / "out", "train", "a")]
    files.write_csv(tmp_path / "out" / "index.csv", build_index(prepared))
    images = Images(tmp_path / "out")
    assert (images.image("a") == image).all()
    assert (images.label_map("a") == label_map).all()
    assert images.size("a") == (90, 90)
    assert images.modality("a") == "purple_tissue"
    assert images.index.nuclei.tolist() == [9]


def test_an_image_in_both_subsets_is_refused(tmp_path):
    write_train(tmp_path, "a", *draw_discs(20, 60))
    write_png(tmp_path / "stage1_test/a/images/a.png", draw_discs(20, 60)[0])
    both = [prepare_image(tmp_path, tmp_path / "out", subset, "a") for subset in ("train", "test")]
    with pytest.raises(ValueError, match="image a is in stage1_train and stage1_test"):
        build_index(both)


def test_only_files_that_the_index_does_not_name_are_stale(tmp_path):
    index = pd.DataFrame({"image": ["images/a.png", "images/b.png"], "label": ["labels/a.png", None]})
    for name in (
        "images/a.png",
        "images/b.png",
        "images/c.png",
        "labels/a.png",
        "labels/b.png",
        "images/.a.png.7.tmp",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "images" / "notes.txt").touch()
    assert remove_unlisted_files(tmp_path, index) == 3
    assert sorted(contents(tmp_path)) == ["images/a.png", "images/b.png", "images/notes.txt", "labels/a.png"]


def test_the_summary_names_faults_and_known_bad_annotations(tmp_path):
    bad, fault = KNOWN_BAD[1]
    image, label_map = draw_discs(20, 60, count=2)
    write_train(tmp_path, bad, image, label_map)
    write_train(tmp_path, f"{bad[:8]}{'0' * 56}", image[::-1], label_map[::-1])
    write_train(tmp_path, "bare", image[:, ::-1] // 3, np.zeros_like(label_map))
    write_train(tmp_path, "nested", image[:, ::-1] // 2, np.zeros_like(label_map))
    write_png(tmp_path / "stage1_train" / bad / "masks" / "void.png", np.zeros((60, 60), np.uint8))
    large = np.full((60, 60), 255, np.uint8)
    write_png(tmp_path / "stage1_train" / "nested" / "masks" / "all.png", large)
    write_png(tmp_path / "stage1_train" / "nested" / "masks" / "half.png", np.triu(large))
    prepared = [prepare_image(tmp_path, tmp_path / "out", "train", i) for i in find_images(tmp_path, "train")]
    lines = describe_images(prepared, build_index(prepared))
    warnings = [line for line in lines if line.startswith("warning")]
    assert warnings == [
        f"warning: {bad}/masks/void.png is empty or covered by smaller masks, left out",
        "warning: training image bare has no nucleus annotated",
        f"warning: training image {bad} is known to be badly annotated: {fault}",
    ]
    assert "1830 pixels of 1 images are in several masks; the smallest keeps them" in lines


# The two stages


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("archive"))


def test_prepare_gives_the_same_bytes_again_also_over_the_remains_of_a_killed_run(archive, tmp_path):
    first = run_script("prepare.py", "--raw", archive, "--out", tmp_path / "a", "--workers", 2)
    assert first.returncode == 0, first.stderr
    remains = tmp_path / "b"
    for name, content in {
        "images/train00.png": b"half an ima",
        "images/.train01.png.12.tmp": b"half",
        "labels/gone.png": b"an image of an earlier archive",
        "index.csv": b"an older index",
    }.items():
        (remains / name).parent.mkdir(parents=True, exist_ok=True)
        (remains / name).write_bytes(content)
    second = run_script("prepare.py", "--raw", archive, "--out", remains, "--workers", 1)
    assert second.returncode == 0, second.stderr
    assert contents(tmp_path / "a") == contents(remains)
    index = pd.read_csv(remains / "index.csv", dtype={"image_id": str})
    assert list(index.columns) == [*INDEX_COLUMNS, "source"]
    assert index.subset.tolist() == ["train"] * 8 + ["test"] * 2
    assert index.image_id.tolist() == [f"train{k:02d}" for k in range(8)] + ["test8", "test9"]
    assert set(contents(remains)) == {*index.image, *index.label.dropna(), "settled.csv", "index.csv"}
    assert "small_fluorescence" in first.stdout


def test_prepare_records_overlaps_and_masks_left_out_by_image(archive, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(archive, raw)
    masks = raw / "stage1_train/train01/masks"
    first = cv2.imread(str(masks / "mask001.png"), cv2.IMREAD_GRAYSCALE)
    wide = cv2.dilate(first, np.ones((3, 3), np.uint8))
    write_png(masks / "over.png", wide)
    write_png(masks / "empty.png", np.zeros_like(first))
    done = run_script("prepare.py", "--raw", raw, "--out", tmp_path / "out", "--workers", 1)
    assert done.returncode == 0, done.stderr
    settled = read_table(tmp_path / "out/settled.csv", MASK_CONFLICT_COLUMNS, "").set_index("image_id")
    assert list(settled.index) == find_images(raw, "train")
    assert settled.contested_pixels["train01"] == np.count_nonzero(first)
    assert settled.left_out["train01"] == "empty.png"
    others = settled.drop(index="train01")
    assert (others.contested_pixels == 0).all()
    assert others.left_out.isna().all()


def test_prepare_leaves_no_index_behind_when_it_fails(archive, tmp_path):
    raw = write_archive(tmp_path / "raw", train=2, test=1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.csv").write_text("an older index")
    write_png(raw / "stage1_train/train01/masks/mask001.png", np.full((3, 3), 255, np.uint8))
    done = run_script("prepare.py", "--raw", raw, "--out", tmp_path / "out", "--workers", 2)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "mask001.png: the mask is 3x3" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "index.csv").exists()


def test_folds_are_made_from_the_index_and_refused_when_groups_are_too_few(archive, tmp_path):
    prepared = [prepare_image(archive, tmp_path, "train", i) for i in find_images(archive, "train")]
    index = build_index(prepared)
    files.write_csv(tmp_path / "index.csv", index)
    arguments = ("--index", tmp_path / "index.csv", "--out", tmp_path / "splits.csv", "--folds")
    done = run_script("make_folds.py", *arguments, 2)
    assert done.returncode == 0, done.stderr
    splits = read_splits(tmp_path / "splits.csv")
    assert list(splits.columns) == list(SPLIT_COLUMNS)
    assert splits.image_id.tolist() == index.image_id.tolist()
    assert splits.groupby("group").fold.nunique().eq(1).all()
    refused = run_script("make_folds.py", *arguments, 50)
    assert refused.returncode == 1
    assert "50 folds asked for, but the 8 training images are only" in refused.stderr
