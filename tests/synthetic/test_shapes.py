import numpy as np
import pytest

from nuclei.synthetic.shapes import CLEARANCE, HIDDEN_SHARE, Crowd, Ellipse, Scene, place


def draw(
    scene: Scene, label: int, ellipse: Ellipse, bumps: float = 0.0, alone: bool = False, seed: int = 0
) -> bool:
    return scene.draw(np.random.default_rng(seed), label, ellipse, bumps, alone)


@pytest.mark.parametrize("angle", [0.0, 0.7, 2.0])
def test_a_smooth_outline_encloses_the_area_and_centre_of_the_ellipse(angle):
    scene = Scene.empty((80, 100))
    assert draw(scene, 7, Ellipse(38.0, 52.0, 20, 10, angle))
    assert set(np.unique(scene.label_map)) == {0, 7}
    assert (scene.label_map > 0).sum() == pytest.approx(np.pi * 20 * 10, rel=0.02)
    np.testing.assert_allclose(np.mean(np.nonzero(scene.label_map), axis=1), [38, 52], atol=0.2)


def test_the_angle_turns_the_longer_axis_from_the_columns_to_the_rows():
    lying, standing = Scene.empty((80, 80)), Scene.empty((80, 80))
    draw(lying, 1, Ellipse(40, 40, 24, 8, 0.0))
    draw(standing, 1, Ellipse(40, 40, 24, 8, np.pi / 2))
    assert np.ptp(np.nonzero(lying.label_map)[1]) > 2 * np.ptp(np.nonzero(lying.label_map)[0])
    np.testing.assert_array_equal(standing.label_map, lying.label_map.T)


def test_depth_is_zero_outside_and_grows_to_the_short_half_axis():
    scene = Scene.empty((80, 80))
    draw(scene, 1, Ellipse(40, 40, 18, 12, 0.3), bumps=0.1)
    np.testing.assert_array_equal(scene.depth > 0, scene.label_map > 0)
    assert scene.depth[40, 40] == scene.depth.max() == pytest.approx(12)


def test_more_bumps_stray_further_from_the_ellipse():
    def strays(bumps: float) -> int:
        smooth, wavy = Scene.empty((80, 80)), Scene.empty((80, 80))
        draw(smooth, 1, Ellipse(40, 40, 20, 15, 0.3))
        draw(wavy, 1, Ellipse(40, 40, 20, 15, 0.3), bumps=bumps)
        return int((smooth.label_map != wavy.label_map).sum())

    assert 0 < strays(0.05) < strays(0.2)


@pytest.mark.parametrize("bearing", np.linspace(0, 6, 7))
def test_an_ellipse_moved_against_another_touches_it_and_hides_little(bearing):
    scene = Scene.empty((160, 160))
    first = Ellipse(80, 80, 20, 12, 0.4)
    draw(scene, 1, first)
    before = scene.label_map.copy()
    second = Ellipse(0, 0, 14, 9, 1.9).against(first, bearing)
    assert draw(scene, 2, second)
    np.testing.assert_array_equal(scene.label_map[before > 0], before[before > 0])
    assert (scene.label_map == 2).sum() > (1 - HIDDEN_SHARE) * np.pi * 14 * 9 - 20
    ones, twos = (np.argwhere(scene.label_map == label) for label in (1, 2))
    assert np.hypot(*(ones[:, None] - twos[None]).transpose(2, 0, 1)).min() < 4


def test_a_nucleus_without_room_is_not_drawn():
    scene = Scene.empty((80, 80))
    draw(scene, 1, Ellipse(40, 40, 20, 20, 0))
    before = scene.label_map.copy()
    assert not draw(scene, 2, Ellipse(40, 50, 10, 10, 0))
    assert not draw(scene, 2, Ellipse(40, 200, 10, 10, 0))
    assert not draw(scene, 2, Ellipse(40, -8, 9, 9, 0))
    np.testing.assert_array_equal(scene.label_map, before)


def test_alone_demands_clear_ground():
    near = Ellipse(40, 40 + 20 + 8 + CLEARANCE - 2, 8, 8, 0)
    for alone in (False, True):
        scene = Scene.empty((80, 90))
        draw(scene, 1, Ellipse(40, 40, 20, 20, 0))
        assert draw(scene, 2, near, alone=alone) is not alone


def test_a_crowd_has_the_density_asked_for_and_aligned_nuclei_share_a_direction():
    def directions(aligned: float) -> np.ndarray:
        scene = place(np.random.default_rng(1), (256, 256), Crowd(20, 8, 0.1, 3.0, 0.02, 0.0, aligned))
        assert scene.label_map.max() == 20
        angles = []
        for label in range(1, 21):
            rows, columns = np.nonzero(scene.label_map == label)
            _, axes = np.linalg.eigh(np.cov(rows, columns))
            angles.append(2 * np.arctan2(axes[0, 1], axes[1, 1]))
        return np.abs(np.exp(1j * np.array(angles)).mean())

    assert directions(1.0) > 0.9 > 0.6 > directions(0.0)


def test_touching_nuclei_lie_closer_than_lonely_ones():
    def contacts(touching: float) -> int:
        label_map = place(
            np.random.default_rng(2), (256, 256), Crowd(25, 9, 0.1, 0.5, 0.05, touching)
        ).label_map
        left, right = label_map[:, :-1], label_map[:, 1:]
        return int(((left != right) & (left > 0) & (right > 0)).sum())

    assert contacts(0.0) == 0
    assert contacts(0.8) > 20
