import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from nuclei.config import AugmentationConfig, Config, TrainingConfig
from nuclei.dataset import Batches, Crops, draw_weights

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
    config = CONFIG.model_copy(update={"training": TrainingConfig(steps=100, steps_per_epoch=100, batch_size=8)})
    crops = Crops(images, images.ids("train"), config, fold=0)
    counts = np.bincount(crops.draw_epoch(0), minlength=len(crops.ids))
    assert np.abs(counts - 800 * crops.weights).max() <= 1
