import cv2
import numpy as np
import pytest

from nuclei.postprocessing.rim_calibration import calibrate_rims, measure_prior

RADIUS = 12


def distances():
    """Signed distance from the rims of twelve discs, positive inside (H, W)."""
    rows, columns = np.mgrid[:160, :210]
    discs = [
        RADIUS - np.hypot(rows - row, columns - column)
        for row in (25, 75, 125)
        for column in (30, 80, 130, 180)
    ]
    return np.max(discs, axis=0)


def picture(inside=150, background=20):
    """Discs blurred by the microscope: brightness is half-way at their rims."""
    grey = np.where(distances() > 0, inside, background).astype(np.float32)
    return np.repeat(cv2.GaussianBlur(grey, (0, 0), 2)[..., None], 3, 2).astype(np.uint8)


def maps(offset):
    """Maps whose foreground is one half `offset` pixels outside the rims; the core is the same."""
    foreground = np.round(255 / (1 + np.exp(-(distances() + offset)))).astype(np.uint8)
    return np.stack([foreground, np.zeros_like(foreground), foreground])


def area(foreground):
    return np.count_nonzero(foreground >= 128) / np.count_nonzero(distances() > 0)


@pytest.mark.parametrize("offset", [-1.5, 1.5])
def test_rims_drawn_too_far_in_or_out_come_to_the_level_asked_for(offset):
    given = maps(offset)
    calibrated = calibrate_rims(given, picture(), 0.5)
    assert abs(area(given[0]) - 1) > 0.2
    assert abs(area(calibrated[0]) - 1) < 0.1


def test_a_higher_level_draws_smaller_nuclei():
    given = maps(0.0)
    areas = [area(calibrate_rims(given, picture(), level)[0]) for level in (0.3, 0.5, 0.7)]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > 1.05 * areas[2]


def test_only_the_foreground_changes():
    given = maps(1.5)
    calibrated = calibrate_rims(given, picture(), 0.5)
    assert not np.array_equal(calibrated[0], given[0])
    assert np.array_equal(calibrated[1:], given[1:])


def test_nuclei_of_one_image_move_each_to_its_own_rim():
    """Half of the nuclei are drawn too large, half too small: no one threshold fits both."""
    offset = np.where(np.arange(210) < 105, 1.2, -1.2)
    given = maps(offset)
    calibrated = calibrate_rims(given, picture(), 0.5)
    for half in (np.s_[:, :105], np.s_[:, 105:]):
        nuclei = np.count_nonzero(distances()[half] > 0)
        before, after = (np.count_nonzero(part[0][half] >= 128) / nuclei for part in (given, calibrated))
        assert abs(after - 1) < 0.75 * abs(before - 1)


@pytest.mark.parametrize("background", [150, 200])
def test_nuclei_that_are_not_brighter_than_the_background_leave_the_maps_as_they_are(background):
    given = maps(1.5)
    assert np.array_equal(calibrate_rims(given, picture(inside=150, background=background), 0.5), given)


@pytest.mark.parametrize("value", [0, 255])
def test_maps_without_rims_are_not_calibrated(value):
    given = np.full((3, 160, 210), value, np.uint8)
    assert np.array_equal(calibrate_rims(given, picture(), 0.5), given)


def two_nuclei(offset):
    given = maps(offset)
    given[:, 50:] = 0
    given[:, :, 105:] = 0
    return given


def test_two_nuclei_are_too_few_to_measure():
    given = two_nuclei(1.5)
    assert measure_prior(given, picture()) is None
    assert np.array_equal(calibrate_rims(given, picture(), 0.5), given)


def test_a_part_with_few_nuclei_is_calibrated_by_those_of_the_whole_image():
    given = two_nuclei(1.5)
    calibrated = calibrate_rims(given, picture(), 0.5, measure_prior(maps(1.5), picture()))
    inside = np.count_nonzero(distances()[:50, :105] > 0)
    assert abs(np.count_nonzero(given[0] >= 128) / inside - 1) > 0.2
    assert abs(np.count_nonzero(calibrated[0] >= 128) / inside - 1) < 0.1


def test_a_part_without_nuclei_is_calibrated_by_those_of_the_whole_image():
    faint = np.full((3, 160, 210), 100, np.uint8)
    calibrated = calibrate_rims(faint, picture(), 0.5, measure_prior(maps(-1.5), picture()))
    assert (calibrated[0] > 128).all()
