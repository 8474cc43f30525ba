import cv2
import numpy as np
import pytest

from nuclei.postprocessing.rim_calibration import apply_lookup, find_lookup

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
    """Maps whose foreground is one half `offset` pixels outside the rims."""
    foreground = 255 / (1 + np.exp(-(distances() + offset)))
    return np.repeat(np.round(foreground).astype(np.uint8)[None], 3, 0)


def area(foreground):
    return np.count_nonzero(foreground >= 128) / np.count_nonzero(distances() > 0)


@pytest.mark.parametrize("offset", [-1.5, 1.5])
def test_rims_drawn_too_far_in_or_out_come_to_the_level_asked_for(offset):
    given = maps(offset)
    calibrated = apply_lookup(given, find_lookup(given, picture(), 0.5))
    assert abs(area(given[0]) - 1) > 0.2
    assert abs(area(calibrated[0]) - 1) < 0.1


def test_a_higher_level_draws_smaller_nuclei():
    given = maps(0.0)
    areas = [area(apply_lookup(given, find_lookup(given, picture(), level))[0]) for level in (0.3, 0.5, 0.7)]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > 1.05 * areas[2]


def test_only_the_foreground_changes():
    given = maps(1.5)
    calibrated = apply_lookup(given, find_lookup(given, picture(), 0.5))
    assert not np.array_equal(calibrated[0], given[0])
    assert np.array_equal(calibrated[1:], given[1:])


@pytest.mark.parametrize("background", [150, 200])
def test_nuclei_that_are_not_brighter_than_the_background_leave_the_maps_as_they_are(background):
    assert find_lookup(maps(1.5), picture(inside=150, background=background), 0.5) is None


@pytest.mark.parametrize("value", [0, 255])
def test_maps_without_rims_are_not_calibrated(value):
    assert find_lookup(np.full((3, 160, 210), value, np.uint8), picture(), 0.5) is None


def test_two_nuclei_are_too_few_to_measure():
    given = maps(1.5)
    given[:, 50:] = 0
    given[:, :, 105:] = 0
    assert find_lookup(given, picture(), 0.5) is None
