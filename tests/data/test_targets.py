import numpy as np
import pytest

from nuclei.arrays import BORDER, CORE, FOREGROUND
from nuclei.data.targets import (
    LARGEST_GAIN,
    centre_energy,
    core_energy,
    energy_target,
    pixel_weights,
    three_class_target,
    touching_border,
)


def discs(*centres, radius=10, shape=(64, 64)):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    label_map = np.zeros(shape, np.int32)
    for label, (row, column) in enumerate(centres, start=1):
        label_map[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = label
    return label_map


APART = discs((16, 16), (44, 44))
TOUCHING = discs((32, 20), (32, 41))


def test_the_core_is_one_in_the_middle_and_falls_towards_the_rim():
    core = core_energy(APART)
    assert core[16, 16] == core[44, 44] == 1
    assert (np.diff(core[16, 16:27]) < 0).all()
    assert core[APART == 0].max() == 0
    assert core[APART > 0].min() > 0


def test_the_core_is_normalised_by_nucleus_so_that_size_does_not_matter():
    small, large = core_energy(discs((32, 32), radius=5)), core_energy(discs((32, 32), radius=25))
    assert small[32, 32] == large[32, 32] == 1


def test_the_image_edge_is_no_rim():
    core = core_energy(discs((0, 32), radius=20))
    assert core[0, 32] == 1


def test_cores_of_touching_nuclei_are_apart_at_half_height():
    from cv2 import connectedComponents

    assert connectedComponents((TOUCHING > 0).astype(np.uint8))[0] - 1 == 1
    assert connectedComponents((core_energy(TOUCHING) > 0.5).astype(np.uint8))[0] - 1 == 2


def test_a_centre_is_highest_in_the_middle_and_wider_in_larger_nuclei():
    small, large = centre_energy(discs((32, 32), radius=5)), centre_energy(discs((32, 32), radius=25))
    assert small[32, 32] == large[32, 32] == 1
    assert (large > 0.5).sum() > 15 * (small > 0.5).sum()
    assert (np.diff(large[32, 32:58]) < 0).all()


def test_centres_of_touching_nuclei_are_apart_and_bent_ones_have_theirs_within():
    from cv2 import connectedComponents

    assert connectedComponents((centre_energy(TOUCHING) > 0.3).astype(np.uint8))[0] - 1 == 2
    ring = discs((32, 32), radius=20) - discs((32, 32), radius=12)
    assert centre_energy(ring)[ring > 0].max() == 1
    assert not centre_energy(ring)[ring == 0].any()


def test_the_border_lies_between_touching_nuclei_and_nowhere_else():
    assert not touching_border(APART, 0.15, 4).any()
    rows, columns = np.nonzero(touching_border(TOUCHING, 0.15, 4))
    assert len(rows) > 0
    assert abs(rows.mean() - 32) < 1
    assert abs(columns.mean() - 30.5) < 1


def test_the_border_widens_with_the_nuclei():
    narrow = touching_border(discs((32, 25), (32, 36), radius=5), 0.15, 4)[32].sum()
    wide = touching_border(discs((32, 12), (32, 53), radius=20), 0.15, 4)[32].sum()
    assert narrow < wide


def test_borders_and_small_nuclei_weigh_more_and_the_background_1():
    label_map = discs((32, 20), (32, 41))
    label_map[2:4, 2:4] = 3
    border = touching_border(label_map, 0.15, 4)
    plain = pixel_weights(label_map, border, 0.0, 0.0)
    assert plain.shape == (1, 64, 64)
    assert plain.dtype == np.float32
    assert (plain == 1).all()
    on_borders = pixel_weights(label_map, border, 3.0, 0.0)[0]
    assert (on_borders == np.where(border, 4, 1)).all()
    on_small = pixel_weights(label_map, border, 0.0, 2.0)[0]
    assert (on_small[label_map == 0] == 1).all()
    assert on_small[2, 2] == 1 + 2 * LARGEST_GAIN
    both = pixel_weights(label_map, border, 3.0, 2.0)[0]
    assert both == pytest.approx(on_borders + on_small - 1)


def test_every_nucleus_gains_the_same_whatever_its_size():
    small, large = discs((16, 16), radius=8), discs((44, 44), radius=15)
    label_map = small + 2 * large
    gain = pixel_weights(label_map, np.zeros_like(label_map), 0.0, 0.5)[0] - 1
    assert gain[label_map == 1].sum() == pytest.approx(gain[label_map == 2].sum(), rel=1e-5)
    assert gain[label_map > 0].mean() == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("label_map", [np.zeros((16, 16), np.int32), np.full((16, 16), 7, np.int32)])
def test_without_nuclei_or_background_the_weights_are_finite(label_map):
    assert np.isfinite(pixel_weights(label_map, np.zeros_like(label_map), 1.0, 1.0)).all()


@pytest.mark.parametrize("core", ["distance", "centre"])
@pytest.mark.parametrize("label_map", [np.zeros((16, 16), np.int32), np.ones((16, 16), np.int32), TOUCHING])
def test_targets_are_probabilities(label_map, core):
    energy = energy_target(label_map, 0.15, 4, core)
    assert energy.dtype == np.float32
    assert energy.min() >= 0
    assert energy.max() <= 1
    assert np.array_equal(energy[FOREGROUND], label_map > 0)
    assert (energy[CORE] <= energy[FOREGROUND]).all()
    assert set(np.unique(energy[BORDER])) <= {0, 1}
    assert (three_class_target(label_map, 0.15, 4).sum(axis=0) == 1).all()
