import numpy as np
import pytest

from nuclei.config import TargetConfig
from nuclei.data.dataset import make_target
from nuclei.inference.tile_merging import segment_tiles
from nuclei.postprocessing.parameters import Parameters
from nuclei.postprocessing.watershed import segment_maps
from nuclei.synthetic.images import make_image


def maps_of(seed, height=300, width=420):
    """Noisy maps of drawn nuclei."""
    target = make_target(
        make_image("small_fluorescence", seed, height, width)[1].astype(np.int32), TargetConfig()
    )
    noise = np.random.default_rng(seed).normal(0, 0.04, target.shape)
    return (np.clip(target + noise, 0, 1) * 255).astype(np.uint8)


def same_partition(first, second):
    pairs = np.unique(np.stack([first.ravel(), second.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("parameters", [Parameters(), Parameters(min_relative_area=0.4, border_weight=0.5)])
@pytest.mark.parametrize("share", [1.0, 0.85])
def test_tiles_give_the_nuclei_of_the_whole_image(seed, parameters, share):
    maps = (maps_of(seed) * share).astype(np.uint8)
    out = np.zeros(maps.shape[1:], np.int32)
    count = segment_tiles(maps, parameters, out, side=90, margin=80)
    whole = segment_maps(maps, parameters)
    assert count == out.max() == whole.max() > 5
    assert same_partition(out, whole)


def test_a_nucleus_with_a_hole_across_a_seam_is_filled():
    maps = np.zeros((3, 120, 120), np.uint8)
    maps[[0, 2], 40:80, 40:80] = 255
    maps[:, 55:65, 55:65] = 0
    out = np.zeros((120, 120), np.int32)
    assert segment_tiles(maps, Parameters(), out, side=60, margin=50) == 1
    assert (out == 1).sum() == 1600


def test_maps_without_nuclei_give_none():
    out = np.zeros((70, 80), np.int32)
    assert segment_tiles(np.zeros((3, 70, 80), np.uint8), Parameters(), out, side=40, margin=10) == 0
    assert not out.any()
