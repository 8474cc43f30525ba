"""Maps made from label maps come back as those label maps; what is no nucleus is dropped."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from nuclei.arrays import BORDER, CORE, FOREGROUND
from nuclei.data.targets import energy_target, three_class_target
from nuclei.errors import UserError
from nuclei.evaluation.metric import average_precision, error_counts
from nuclei.postprocessing.parameters import RENAMED, Parameters
from nuclei.postprocessing.watershed import segment_maps

DEFAULT = Parameters()


def draw_discs(centres, shape=(96, 128)):
    """Label map of discs (row, column, radius); overlaps go to the nearer centre."""
    rows, columns = np.indices(shape)
    reach = np.stack([np.hypot(rows - row, columns - column) / radius for row, column, radius in centres])
    return np.where(reach.min(axis=0) <= 1, reach.argmin(axis=0) + 1, 0).astype(np.int32)


def energy_maps(label_map):
    return np.round(energy_target(label_map, 0.15, 4.0) * 255).astype(np.uint8)


def centre_maps(label_map):
    return np.round(energy_target(label_map, 0.15, 4.0, "centre") * 255).astype(np.uint8)


def three_class_maps(label_map):
    """FOREGROUND, BORDER and CORE as a three-class network's probabilities give them."""
    background, body, border = three_class_target(label_map, 0.15, 4.0)
    return np.round(np.stack([(1 - background) * (label_map > 0), border, body * (1 - border)]) * 255).astype(
        np.uint8
    )


def scatter(seed, count=25, shape=(200, 240)):
    """Label map of discs of many sizes at random places; many touch."""
    generator = np.random.default_rng(seed)
    centres = []
    while len(centres) < count:
        row, column, radius = generator.uniform((0, 0, 5), (*shape, 14))
        if all(np.hypot(row - r, column - c) > 0.85 * (radius + other) for r, c, other in centres):
            centres.append((row, column, radius))
    label_map = draw_discs(centres, shape)
    areas = np.bincount(label_map.ravel())
    return np.where(areas[label_map] >= 40, label_map, 0).astype(np.int32)


def degrade(maps, blur, noise, seed=0):
    generator = np.random.default_rng(seed)
    blurred = np.stack([cv2.GaussianBlur(channel, (0, 0), blur) for channel in maps]).astype(np.float64)
    return np.clip(blurred + generator.normal(0, noise, maps.shape), 0, 255).astype(np.uint8)


def relabelled(label_map):
    """The same nuclei as a set of masks, whatever their numbers."""
    return {(label_map == label).tobytes() for label in np.unique(label_map) if label}


@pytest.mark.parametrize("make_maps", [energy_maps, centre_maps, three_class_maps])
@pytest.mark.parametrize("seed", range(4))
def test_perfect_maps_give_back_the_nuclei(make_maps, seed):
    truth = scatter(seed)
    predicted = segment_maps(make_maps(truth), DEFAULT)
    assert average_precision(truth, predicted).mean() > 0.97
    assert error_counts(truth, predicted)["merged"] == 0


def test_nuclei_apart_come_back_pixel_by_pixel():
    truth = draw_discs([(20, 20, 9), (20, 60, 14), (60, 30, 6), (70, 100, 18)])
    assert relabelled(segment_maps(energy_maps(truth), DEFAULT)) == relabelled(truth)


def test_scores_fall_with_the_quality_of_the_maps_but_not_at_once():
    truth = scatter(1)
    scores = [
        average_precision(truth, segment_maps(degrade(energy_maps(truth), blur, noise), DEFAULT)).mean()
        for blur, noise in ((0.01, 0), (1.0, 15), (2.5, 50))
    ]
    assert scores[0] > scores[1] > scores[2]
    assert scores[1] > 0.7
    assert scores[2] > 0.2


@pytest.mark.parametrize("distance", [14, 16, 18])
def test_two_touching_discs_are_split_on_the_line_between_them(distance):
    truth = draw_discs([(40, 40, 10), (40, 40 + distance, 10)])
    predicted = segment_maps(energy_maps(truth), DEFAULT)
    assert predicted.max() == 2
    assert average_precision(truth, predicted)[8] == 1


def test_seeds_that_a_low_level_joins_are_split_at_a_higher_one():
    maps = energy_maps(draw_discs([(40, 40, 10), (40, 57, 10)]))
    maps[BORDER] = 0
    maps[CORE, 38:43, 44:54] = np.maximum(maps[CORE, 38:43, 44:54], 140)
    assert segment_maps(maps, replace(DEFAULT, seed_threshold=0.5, split_levels=0)).max() == 1
    assert segment_maps(maps, replace(DEFAULT, seed_threshold=0.5, split_levels=2)).max() == 2


def test_a_speck_on_a_summit_makes_no_second_seed():
    maps = energy_maps(draw_discs([(40, 40, 20)]))
    maps[CORE] = np.minimum(maps[CORE], 170)
    maps[CORE, 30:33, 30:33] = 255
    maps[CORE, 45:48, 45:48] = 255
    assert segment_maps(maps, DEFAULT).max() == 1


def test_foreground_without_a_seed_is_a_nucleus():
    truth = draw_discs([(20, 20, 8), (60, 60, 10)])
    maps = energy_maps(truth)
    maps[CORE] = np.where(truth == 1, np.minimum(maps[CORE], 80), maps[CORE])
    assert relabelled(segment_maps(maps, DEFAULT)) == relabelled(truth)


def test_empty_maps_give_no_nuclei():
    label_map = segment_maps(np.zeros((3, 50, 60), np.uint8), DEFAULT)
    assert label_map.shape == (50, 60)
    assert label_map.dtype == np.int32
    assert not label_map.any()


def test_full_maps_give_one_nucleus():
    maps = np.zeros((3, 33, 47), np.uint8)
    maps[[FOREGROUND, CORE]] = 255
    assert np.array_equal(segment_maps(maps, DEFAULT), np.ones((33, 47), np.int32))


def test_a_hole_in_a_nucleus_is_filled_but_a_gap_among_nuclei_is_not():
    truth = draw_discs([(30, 30, 12)])
    maps = energy_maps(truth)
    maps[:, 28:32, 28:32] = 0
    assert relabelled(segment_maps(maps, DEFAULT)) == relabelled(truth)
    ring = [
        (48 + 20 * np.sin(angle), 64 + 20 * np.cos(angle), 9.5) for angle in np.arange(0, 2 * np.pi, np.pi / 4)
    ]
    around = draw_discs(ring)
    enclosed = segment_maps(energy_maps(around), DEFAULT)
    assert enclosed.max() == 8
    assert enclosed[48, 64] == 0


def test_nuclei_that_touch_at_a_corner_are_two():
    maps = np.zeros((3, 40, 40), np.uint8)
    maps[:, 5:15, 5:15] = maps[:, 15:25, 15:25] = np.array([255, 0, 255], np.uint8)[:, None, None]
    assert segment_maps(maps, DEFAULT).max() == 2


def test_dust_and_faint_nuclei_are_dropped_and_the_rest_is_numbered_without_gaps():
    truth = draw_discs([(15, 15, 2), (20, 60, 10), (60, 20, 10), (60, 90, 12)])
    maps = energy_maps(truth)
    maps[FOREGROUND][truth == 3] = 180
    predicted = segment_maps(maps, DEFAULT)
    assert relabelled(predicted) == {(truth == 2).tobytes(), (truth == 4).tobytes()}
    assert np.unique(predicted).tolist() == [0, 1, 2]
    everything = replace(
        DEFAULT, min_area=0, min_relative_area=0.0, min_mean_probability=0.0, min_seed_peak=0.0
    )
    assert segment_maps(maps, everything).max() == 4


@pytest.mark.parametrize("share", [0.75, 0.85])
def test_of_an_image_that_the_network_is_less_sure_of_the_same_nuclei_are_found(share):
    maps = degrade(energy_maps(scatter(5)), 1.0, 20)
    unsure = np.round(maps * share).astype(np.uint8)
    found = segment_maps(maps, DEFAULT)
    assert average_precision(found, segment_maps(unsure, DEFAULT)).mean() > 0.95
    absolute = replace(DEFAULT, min_certainty=1.0)
    assert average_precision(found, segment_maps(unsure, absolute)).mean() < 0.75


def test_faint_noise_alone_makes_no_nuclei():
    maps = np.zeros((3, 60, 60), np.uint8)
    maps[[FOREGROUND, CORE], 20:30, 20:30] = 140
    assert segment_maps(maps, DEFAULT).max() == 0
    assert segment_maps(maps, replace(DEFAULT, min_certainty=0.0)).max() == 1


def test_a_nucleus_that_the_network_is_less_sure_of_keeps_its_size_beside_one_that_it_is_sure_of():
    truth = draw_discs([(30, 30, 16), (60, 90, 16)])
    maps = degrade(energy_maps(truth), 4.0, 0)
    maps[:, truth.shape[0] // 2 :, 64:] = maps[:, truth.shape[0] // 2 :, 64:] * 0.75
    unsure = replace(DEFAULT, min_mean_probability=0.5)
    same, own = (
        np.bincount(
            segment_maps(maps, replace(unsure, foreground_threshold=one, instance_threshold=other)).ravel()
        )[1:]
        for one, other in ((0.6, 0.0), (0.3, 0.65))
    )
    assert same[1] < 0.9 * same[0]
    assert own[1] > 0.95 * own[0]
    assert abs(own[0] - np.count_nonzero(truth == 1)) < 0.15 * own[0]


def test_every_nucleus_respects_the_limits_asked_for():
    maps = degrade(energy_maps(scatter(3)), 1.0, 40)
    parameters = replace(
        DEFAULT, min_area=30, min_mean_probability=0.85, min_seed_peak=0.3, foreground_threshold=0.7
    )
    label_map = segment_maps(maps, parameters)
    assert label_map.max() > 3
    assert np.bincount(label_map.ravel())[1:].min() >= 30
    for label in range(1, label_map.max() + 1):
        assert cv2.connectedComponents((label_map == label).astype(np.uint8), connectivity=4)[0] == 2


def test_a_turned_image_has_the_same_nuclei_turned():
    maps = energy_maps(draw_discs([(20, 20, 9), (20, 60, 14), (60, 30, 6), (70, 100, 18)]))
    turned = segment_maps(np.ascontiguousarray(np.rot90(maps, axes=(1, 2))), DEFAULT)
    assert relabelled(turned) == relabelled(np.rot90(segment_maps(maps, DEFAULT)))


def test_parameters_survive_the_way_through_a_file_and_others_are_refused():
    parameters = Parameters(foreground_threshold=0.45, min_seed_area=7)
    assert Parameters.from_dict(parameters.to_dict()) == parameters
    values = parameters.to_dict()
    misspelt = {("min_areal" if name == "min_area" else name): value for name, value in values.items()}
    with pytest.raises(ValueError, match=r"missing \['min_area'\], unknown \['min_areal'\]"):
        Parameters.from_dict(misspelt)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("foreground_threshold", 1.5, r"foreground_threshold is 1\.5; give a value from 0 to 1"),
        ("seed_threshold", "0.4", r"seed_threshold is '0\.4'; give a number"),
        ("split_levels", True, "split_levels is True; give a number"),
        ("border_weight", -1, "border_weight is -1"),
        ("border_weight", float("nan"), "border_weight is nan"),
        ("border_weight", float("inf"), "border_weight is inf"),
        ("split_levels", 2.0, r"split_levels is 2\.0; give a whole number"),
    ],
)
def test_a_value_out_of_its_range_is_refused(name, value, said):
    with pytest.raises(UserError, match=said):
        Parameters.from_dict({**DEFAULT.to_dict(), name: value})


def test_parameters_are_read_under_their_names_of_earlier_versions(caplog):
    old_names = {new: old for old, new in RENAMED.items()}
    values = replace(DEFAULT, instance_threshold=0.6, min_area=7).to_dict()
    old = {old_names.get(name, name): value for name, value in values.items()}
    assert set(old) > {"foreground", "rim", "seed", "border", "area", "confidence", "peak", "least_certainty"}
    assert Parameters.from_dict(old).to_dict() == values
    with pytest.raises(UserError, match="rim is the old name of instance_threshold; delete one"):
        Parameters.from_dict({**values, "rim": 0.6})


@pytest.mark.parametrize(
    "maps", [np.zeros((2, 8, 8), np.uint8), np.zeros((8, 8), np.uint8), np.zeros((3, 8, 8), np.float32)]
)
def test_other_arrays_are_refused(maps):
    with pytest.raises(ValueError, match=r"expected maps \(3, H, W\) uint8"):
        segment_maps(maps, DEFAULT)
