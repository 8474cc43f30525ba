import shutil

import cv2
import numpy as np
import pytest

from nuclei.config import AugmentationConfig, Config, TrainingConfig
from nuclei.data.dataset import Crops
from nuclei.data.external_sets import ExternalSet, PooledImages, add_external, open_external
from nuclei.data.splits import Fold
from nuclei.errors import UserError

LABELS = np.repeat(np.repeat(np.arange(4, dtype=np.uint16).reshape(2, 2), 32, 0), 32, 1)


@pytest.fixture
def folder(tmp_path):
    """A set `elsewhere` of two images, one grey with 8 bits and one RGB."""
    for kind in ("images", "labels"):
        (tmp_path / "elsewhere" / kind).mkdir(parents=True)
    grey = (LABELS * 60).astype(np.uint8)
    colour = np.stack([np.zeros_like(grey), grey, grey + 20], axis=2)
    for name, pixels in {"a": grey, "b": colour}.items():
        cv2.imwrite(str(tmp_path / "elsewhere" / "images" / f"{name}.png"), pixels)
        cv2.imwrite(str(tmp_path / "elsewhere" / "labels" / f"{name}.png"), LABELS)
    return tmp_path / "elsewhere"


@pytest.fixture(params=["folder", "zip"])
def external(request, folder):
    if request.param == "folder":
        return ExternalSet(folder)
    return ExternalSet(shutil.make_archive(str(folder), "zip", folder) and folder.with_suffix(".zip"))


def test_images_are_rgb_and_labels_are_numbers(external):
    assert external.ids == ["elsewhere/a", "elsewhere/b"]
    assert external.image("elsewhere/a").shape == (64, 64, 3)
    assert external.image("elsewhere/b")[40, 40].tolist() == [200, 180, 0]
    np.testing.assert_array_equal(external.label_map("elsewhere/b"), LABELS)


def test_an_image_without_a_label_map_is_named(folder):
    (folder / "labels" / "b.png").unlink()
    with pytest.raises(UserError, match=r"2 images and 1 label maps, not in pairs: \['b'\]"):
        ExternalSet(folder)


def test_a_set_that_is_not_there_is_named_with_the_remedy(folder):
    assert [each.name for each in open_external(folder.parent, ["elsewhere"])] == ["elsewhere"]
    with pytest.raises(UserError, match=r"training.external: no tnbc.zip and no folder tnbc in .*EXTERNAL="):
        open_external(folder.parent, ["tnbc"])


def test_the_pool_has_both_and_the_set_is_the_source_of_its_images(images, folder):
    pool = PooledImages(images, [ExternalSet(folder)])
    assert pool.source("elsewhere/a") == pool.modality("elsewhere/a") == "elsewhere"
    assert pool.modality("image01") == images.modality("image01")
    assert pool.ids("elsewhere") == ["elsewhere/a", "elsewhere/b"]
    np.testing.assert_array_equal(pool.image("image00"), images.image("image00"))
    with pytest.raises(UserError, match="unknown image elsewhere/c"):
        pool.image("elsewhere/c")


def test_a_sampling_factor_draws_a_set_so_many_times_as_often(images, folder):
    pool = PooledImages(images, [ExternalSet(folder)])
    ids = [*images.ids("train"), *pool.ids("elsewhere")]

    def weight(factor):
        training = TrainingConfig(crop=32, external={"elsewhere": factor} if factor else {})
        config = Config(name="x", training=training, augmentation=AugmentationConfig(preset="none"))
        weights = Crops(pool, ids, config, 0).weights
        return weights[-2:].sum() / weights[:-2].sum()

    assert weight(3.0) == pytest.approx(3 * weight(1.0)) == pytest.approx(3 * weight(None))


def test_external_images_are_added_to_those_a_fold_trains_on(images, folder):
    fold = Fold(1, ["image00"], ["image01"])
    pool, extended = add_external(images, fold, folder.parent, ["elsewhere"])
    assert extended == Fold(1, ["image00", "elsewhere/a", "elsewhere/b"], ["image01"])
    assert pool.label_map("elsewhere/a").max() == 3
    assert add_external(images, fold, None, []) == (images, fold)
