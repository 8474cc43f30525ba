"""A folder or zip of images/ and labels/ becomes the data of the whole pipeline."""

import shutil

import cv2
import numpy as np
import pytest

from nuclei.data.download import download
from nuclei.data.prepare import find_images, image_writer
from nuclei.errors import UserError
from nuclei.io.images import read_label_map

LABELS = np.kron(np.array([[0, 3], [700, 0]], np.uint16), np.ones((16, 16), np.uint16))


@pytest.fixture
def folder(tmp_path):
    """Two training images, one of them without nuclei, and a test image."""
    source = tmp_path / "mine"
    for kind in ("images", "labels"):
        (source / kind).mkdir(parents=True)
    for number, name in enumerate("abc"):
        image = np.random.default_rng(number).integers(0, 255, (32, 32), np.uint8)
        cv2.imwrite(str(source / "images" / f"{name}.png"), image)
    cv2.imwrite(str(source / "labels" / "a.png"), LABELS)
    cv2.imwrite(str(source / "labels" / "b.png"), LABELS * 0)
    return source


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_images_with_labels_are_trained_on_and_the_others_are_test_images(folder, tmp_path, kind):
    source = folder if kind == "folder" else shutil.make_archive(str(tmp_path / "pack"), "zip", folder)
    download(str(source), tmp_path / "raw")
    assert find_images(tmp_path / "raw", "train") == ["a", "b"]
    assert find_images(tmp_path / "raw", "test") == ["c"]
    write = image_writer(tmp_path / "raw", tmp_path / "processed")
    rows = [write(("train", name)) for name in "ab"]
    assert len(rows) == 2
    found = read_label_map(next((tmp_path / "processed" / "labels").glob("a*.png")))
    assert sorted(np.unique(found)) == [0, 1, 2]
    assert ((found > 0) == (LABELS > 0)).all()


def test_a_folder_that_changed_is_read_again(folder, tmp_path):
    download(str(folder), tmp_path / "raw")
    cv2.imwrite(str(folder / "labels" / "c.png"), LABELS)
    cv2.imwrite(str(folder / "images" / "d.png"), np.zeros((32, 32), np.uint8))
    download(str(folder), tmp_path / "raw")
    assert find_images(tmp_path / "raw", "train") == ["a", "b", "c"]


def test_a_folder_without_test_images_or_with_labels_alone_says_what_to_give(folder, tmp_path):
    cv2.imwrite(str(folder / "labels" / "d.png"), LABELS)
    with pytest.raises(UserError, match=r"labels/d\.png has no images/d\.png"):
        download(str(folder), tmp_path / "raw")
    (folder / "labels" / "d.png").unlink()
    (folder / "images" / "c.png").unlink()
    with pytest.raises(UserError, match=r"no image without a label map.*give some of both"):
        download(str(folder), tmp_path / "raw")
