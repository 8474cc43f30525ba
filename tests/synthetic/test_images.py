import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas
import pytest
from script_runs import run_script
from skimage.measure import label as connected_pieces

from nuclei.submission import rle
from nuclei.synthetic import images
from nuclei.synthetic.shapes import MIN_AREA

REPOSITORY = Path(__file__).parents[2]
MODALITIES = tuple(images.SIZES)


@pytest.fixture(scope="module")
def pictures():
    return {modality: images.make_image(modality, 11, *size) for modality, size in images.SIZES.items()}


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_same_seed_gives_the_same_picture_and_another_one_another(pictures, modality):
    image, label_map = pictures[modality]
    again = images.make_image(modality, 11, *images.SIZES[modality])
    np.testing.assert_array_equal(again[0], image)
    np.testing.assert_array_equal(again[1], label_map)
    other = images.make_image(modality, 12, *images.SIZES[modality])
    assert (other[1] != label_map).mean() > 0.01


@pytest.mark.parametrize("modality", MODALITIES)
def test_nuclei_are_numbered_without_gaps_connected_and_not_tiny(pictures, modality):
    image, label_map = pictures[modality]
    assert image.shape == (*images.SIZES[modality], 3)
    assert image.dtype == np.uint8
    assert label_map.shape == image.shape[:2]
    assert label_map.dtype == np.int32
    count = label_map.max()
    assert count >= 5
    areas = np.bincount(label_map.ravel(), minlength=count + 1)[1:]
    assert areas.min() >= MIN_AREA
    for number in range(1, count + 1):
        assert connected_pieces(label_map == number, connectivity=1).max() == 1


def test_modalities_differ_as_the_real_ones_do(pictures):
    def levels(modality):
        image, label_map = pictures[modality]
        return image[label_map > 0].mean(axis=0), image[label_map == 0].mean(axis=0)

    for modality in ("small_fluorescence", "large_fluorescence"):
        nuclei, background = levels(modality)
        assert background.max() < 40 < nuclei.min()
    for modality in ("purple_tissue", "pink_purple_tissue", "grey_tissue"):
        nuclei, background = levels(modality)
        assert (background > nuclei + 10).all()
    red, green, blue = levels("purple_tissue")[0]
    assert blue > red > green
    red, green, blue = levels("pink_purple_tissue")[1]
    assert red > blue > green
    for modality in ("small_fluorescence", "large_fluorescence", "grey_tissue"):
        assert np.ptp(pictures[modality][0], axis=2).max() == 0

    def typical_area(modality):
        return np.median(np.bincount(pictures[modality][1].ravel())[1:])

    assert typical_area("large_fluorescence") > 4 * typical_area("small_fluorescence")


@pytest.mark.parametrize(
    "modality", ["small_fluorescence", "large_fluorescence", "purple_tissue", "pink_purple_tissue"]
)
def test_some_nuclei_touch(pictures, modality):
    _, label_map = pictures[modality]
    pairs = set()
    for here, there in ((label_map[:, :-1], label_map[:, 1:]), (label_map[:-1], label_map[1:])):
        border = (here != there) & (here > 0) & (there > 0)
        pairs |= set(zip(here[border].tolist(), there[border].tolist(), strict=True))
    assert len(pairs) >= 2


def test_some_nuclei_are_cut_by_the_border(pictures):
    _, label_map = pictures["purple_tissue"]
    assert label_map[[0, -1]].any()
    assert label_map[:, [0, -1]].any()


@pytest.mark.parametrize("size", [(259, 161), (33, 500)])
def test_any_size_can_be_made(size):
    image, label_map = images.make_image("small_fluorescence", 1, *size)
    assert image.shape == (*size, 3)
    assert label_map.max() >= 1


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="'purple' is unknown; choose one of small_fluorescence"):
        images.make_image("purple", 0, 256, 256)
    with pytest.raises(ValueError, match="256x31 pixels is too small"):
        images.make_image("purple_tissue", 0, 256, 31)


def test_tiles_of_a_mosaic_continue_across_the_cut():
    tiles = images.make_mosaic("purple_tissue", 4, 128, 160)
    picture, nuclei = images.make_image("purple_tissue", 4, 256, 320)
    parts = [image for image, _ in tiles]
    np.testing.assert_array_equal(np.vstack([np.hstack(parts[:2]), np.hstack(parts[2:])]), picture)
    maps = [label_map for _, label_map in tiles]
    joined = np.vstack([np.hstack(maps[:2]), np.hstack(maps[2:])])
    # only slivers of a nucleus at a cut may get lost
    assert not (joined > 0)[nuclei == 0].any()
    assert ((joined > 0) != (nuclei > 0)).sum() < 8 * MIN_AREA
    assert ((joined[:, 159] > 0) & (joined[:, 160] > 0)).any()


def test_a_set_has_distinct_ids_all_modalities_an_odd_size_and_a_mosaic():
    samples = list(images.make_samples("train", 12, 0))
    assert len({sample.image_id for sample in samples}) == len(samples) == 12
    assert all(len(sample.image_id) == 64 and int(sample.image_id, 16) for sample in samples)
    assert {sample.modality for sample in samples} == set(MODALITIES)
    assert images.ODD_SIZE in {sample.label_map.shape for sample in samples}
    left, right = samples[0].image.astype(int), samples[1].image.astype(int)
    inside = np.abs(np.diff(left, axis=1)).mean()
    assert np.abs(left[:, -1] - right[:, 0]).mean() < 1.5 * inside
    assert np.abs(left[:, -1] - right[:, -1]).mean() > 1.5 * inside


def test_subsets_and_seeds_share_no_picture():
    sets = [
        list(images.make_samples(*arguments))
        for arguments in (("train", 3, 0), ("test", 3, 0), ("train", 3, 1))
    ]
    assert len({sample.image_id for samples in sets for sample in samples}) == 9
    assert len({sample.image.tobytes() for samples in sets for sample in samples}) == 9


def read_pngs(archive: zipfile.ZipFile, folder: str) -> list[np.ndarray]:
    names = [name for name in archive.namelist() if name.startswith(folder)]
    return [cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_UNCHANGED) for name in names]


def test_an_archive_gives_back_images_and_label_maps(tmp_path):
    samples = list(images.make_samples("train", 3, 0))
    images.write_archive(tmp_path / "train.zip", samples, with_masks=True)
    with zipfile.ZipFile(tmp_path / "train.zip") as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {sample.image_id for sample in samples}
        for sample in samples:
            (picture,) = read_pngs(archive, f"{sample.image_id}/images/{sample.image_id}.png")
            np.testing.assert_array_equal(picture[..., 2::-1], sample.image)
            assert (picture[..., 3] == 255).all()
            masks = np.stack(read_pngs(archive, f"{sample.image_id}/masks/"))
            assert masks.dtype == np.uint8
            assert set(np.unique(masks)) == {0, 255}
            np.testing.assert_array_equal((masks > 0).sum(axis=0), sample.label_map > 0)
            found = {mask.tobytes() for mask in masks > 0}
            assert found == {(sample.label_map == k).tobytes() for k in range(1, sample.label_map.max() + 1)}


def test_archives_do_not_depend_on_the_order_of_the_samples(tmp_path):
    samples = list(images.make_samples("test", 3, 0))
    for name, order in (("a", samples), ("b", samples[::-1])):
        images.write_archive(tmp_path / name, order, with_masks=False)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert not [name for name in zipfile.ZipFile(tmp_path / "a").namelist() if "/masks/" in name]


def generate(out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return run_script("generate.py", "--out", out, *flags)


def test_the_script_writes_the_same_bytes_twice_and_the_test_images_truth(tmp_path):
    names = ("stage1_train.zip", "stage1_test.zip", "stage1_solution.csv")
    digests = []
    for folder in ("first", "second"):
        done = generate(tmp_path / folder, "--train", "2", "--test", "2", "--seed", "5")
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == sorted(names)
        digests.append([hashlib.sha256((tmp_path / folder / name).read_bytes()).hexdigest() for name in names])
    assert digests[0] == digests[1]

    solution = pandas.read_csv(io.BytesIO((tmp_path / "first" / names[2]).read_bytes()))
    assert list(solution.columns) == ["ImageId", "EncodedPixels", "Height", "Width", "Usage"]
    assert set(solution.Usage) == {"Private"}
    samples = {sample.image_id: sample for sample in images.make_samples("test", 2, 5)}
    assert set(solution.ImageId) == set(samples)
    for image_id, rows in solution.groupby("ImageId"):
        height, width = int(rows.Height.iloc[0]), int(rows.Width.iloc[0])
        label_map = rle.decode_label_map(list(rows.EncodedPixels), height, width)
        np.testing.assert_array_equal(label_map, samples[image_id].label_map)


def test_the_script_refuses_an_empty_set(tmp_path):
    done = generate(tmp_path / "out", "--test", "0")
    assert done.returncode == 1
    assert "error: --train 40 --test 0: both need at least one image" in done.stderr
    assert not (tmp_path / "out").exists()
