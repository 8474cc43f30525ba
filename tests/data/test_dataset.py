import numpy as np
import pytest
import tifffile
import torch
from torch.utils.data import DataLoader

from nuclei.config import AugmentationConfig, Config, IntensityConfig, LossConfig, TargetConfig, TrainingConfig
from nuclei.data.dataset import Batches, Crops, draw_weights
from nuclei.data.prepared_images import Images
from nuclei.io.files import write_csv

CONFIG = Config(
    name="tiny",
    training=TrainingConfig(steps=6, steps_per_epoch=2, batch_size=4, crop=64),
    augmentation=AugmentationConfig(copy_paste=0.5),
)


@pytest.fixture(scope="module")
def crops(images):
    return Crops(images, images.ids("train"), CONFIG, fold=0)


def load(crops, workers, first_step=0, rank=0, world_size=1):
    sampler = Batches(first_step, CONFIG.training.steps, CONFIG.training.batch_size, rank, world_size)
    return [batch[:2] for batch in DataLoader(crops, batch_sampler=sampler, num_workers=workers)]


def test_an_example_has_the_shapes_and_ranges_that_training_expects(crops):
    for position in range(8):
        pixels, target, image_id = crops[position]
        assert pixels.shape == target.shape == (3, 64, 64)
        assert pixels.dtype == target.dtype == torch.float32
        assert pixels.min() >= -1
        assert pixels.max() <= 1
        assert image_id in crops.ids


def test_an_image_is_read_when_it_is_first_drawn_and_then_kept(images, monkeypatch):
    read, real = [], Images.image
    monkeypatch.setattr(Images, "image", lambda self, image_id: read.append(image_id) or real(self, image_id))
    crops = Crops(images, images.ids("train"), CONFIG, fold=0)
    assert read == []
    drawn = [crops[position][-1] for position in (0, 1, 0)]
    assert sorted(read) == sorted(set(drawn))


@pytest.mark.parametrize("scheme", ["energy", "three_class"])
def test_weights_come_with_the_crop_and_lie_on_its_borders_and_nuclei(images, scheme):
    weighted = CONFIG.model_copy(
        update={"loss": LossConfig(border_weight=4.0, small_weight=0.5), "target": TargetConfig(scheme=scheme)}
    )
    crops = Crops(images, images.ids("train"), weighted, fold=0)
    examples = [crops[position] for position in range(8)]
    for _, target, weights, _ in examples:
        border, outside = (target[1], target[0] == 0) if scheme == "energy" else (target[2], target[1] == 0)
        outside = outside & (border == 0)
        assert weights.shape == (1, 64, 64)
        assert (weights[0][border > 0] >= 5).all()
        assert (weights[0][outside] == 1).all()
        assert (weights[0][~outside & (border == 0)] > 1).all()
    assert any((target[1 if scheme == "energy" else 2] > 0).any() for _, target, *_ in examples)


def test_signed_images_are_windowed_as_they_are_loaded(images, tmp_path):
    """A folder of TIFFs in Hounsfield units trains like a folder of PNGs that hold the window's 256 levels."""
    index = images.index.assign(image=[f"images/{image_id}.tif" for image_id in images.index.image_id])
    for image_id, name in zip(index.image_id, index.image, strict=True):
        (tmp_path / "images").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / name, images.image(image_id)[..., 0].astype(np.int16) * 4 - 500)
    write_csv(tmp_path / "index.csv", index)
    (tmp_path / "labels").symlink_to(images.folder / "labels")
    window = IntensityConfig(window="level", window_level=10, window_width=1020)
    scans = Crops(
        Images(tmp_path), images.ids("train"), CONFIG.model_copy(update={"intensity": window}), fold=0
    )
    for image_id, windowed in zip(scans.ids, scans.images, strict=True):
        assert np.array_equal(windowed[..., 0], images.image(image_id)[..., 0])
    assert scans[0][0].shape == (3, 64, 64)


def test_the_number_of_workers_does_not_change_the_crops(crops):
    alone = load(crops, 0)
    for workers in (1, 2):
        for one, other in zip(alone, load(crops, workers), strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])


def test_a_resumed_run_sees_the_crops_that_it_missed(crops):
    for one, other in zip(load(crops, 0)[3:], load(crops, 0, first_step=3), strict=True):
        assert torch.equal(one[0], other[0])


def test_two_ranks_share_the_batches_of_one_process(crops):
    parts = [load(crops, 0, rank=rank, world_size=2) for rank in (0, 1)]
    for whole, first, second in zip(load(crops, 0), *parts, strict=True):
        assert torch.equal(whole[0][::2], first[0])
        assert torch.equal(whole[0][1::2], second[0])


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="multiple of 3"):
        Batches(0, 1, 4, rank=0, world_size=3)


def test_epochs_and_folds_differ(images, crops):
    other_fold = Crops(images, images.ids("train"), CONFIG, fold=1)
    assert not torch.equal(crops[0][0], crops[crops.epoch_size][0])
    assert not torch.equal(crops[0][0], other_fold[0][0])


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.1), (1.0, 0.5), (0.5, 0.25)])
def test_balance_lifts_the_rare_modality(balance, share):
    weights = draw_weights(["common"] * 9 + ["rare"], balance)
    assert weights.sum() == pytest.approx(1)
    assert weights[-1] == pytest.approx(share)


def test_an_epoch_draws_each_image_as_often_as_its_weight_says(images):
    config = CONFIG.model_copy(
        update={"training": TrainingConfig(steps=100, steps_per_epoch=100, batch_size=8)}
    )
    crops = Crops(images, images.ids("train"), config, fold=0)
    counts = np.bincount(crops.draw_epoch(0), minlength=len(crops.ids))
    assert np.abs(counts - 800 * crops.weights).max() <= 1
