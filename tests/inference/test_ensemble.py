"""The mean of maps: exact, independent of order, and never of other images than those asked for."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from script_runs import run_script

from nuclei.inference.ensemble import average_maps
from nuclei.io.probability_maps import Maps, write_maps

ROOT = Path(__file__).parents[2]
SIZES = {"a": (5, 7), "b": (8, 6), "c": (4, 4)}


def random_maps(seed, sizes=SIZES):
    generator = np.random.default_rng(seed)
    return {
        image_id: generator.integers(0, 256, (3, *size)).astype(np.uint8) for image_id, size in sizes.items()
    }


def write(path, maps):
    write_maps(path, sorted(maps.items()))
    return path


def averaged(*arguments, **options):
    return dict(average_maps(*arguments, **options))


def test_a_map_averaged_with_itself_is_itself(tmp_path):
    maps = random_maps(0)
    one = write(tmp_path / "one.npz", maps)
    copies = [shutil.copy(one, tmp_path / f"copy{number}.npz") for number in range(2)]
    for weights in (None, [0.1, 0.7, 3.3]):
        result = averaged([one, *copies], SIZES, weights=weights)
        assert all(np.array_equal(result[image_id], maps[image_id]) for image_id in SIZES)


def test_the_mean_is_the_mean_with_halves_rounded_up(tmp_path):
    members = [random_maps(seed) for seed in range(3)]
    paths = [write(tmp_path / f"{number}.npz", maps) for number, maps in enumerate(members)]
    two, three = averaged(paths[:2], SIZES), averaged(paths, SIZES)
    for image_id in SIZES:
        stack = np.stack([maps[image_id] for maps in members]).astype(int)
        assert np.array_equal(two[image_id], (stack[:2].sum(axis=0) + 1) // 2)
        assert np.array_equal(three[image_id], (2 * stack.sum(axis=0) + 3) // 6)
        assert three[image_id].dtype == np.uint8


def test_the_order_of_the_inputs_does_not_matter(tmp_path):
    paths = [write(tmp_path / f"{seed}.npz", random_maps(seed)) for seed in range(3)]
    forth, back = averaged(paths, SIZES), averaged(paths[::-1], SIZES)
    assert all(np.array_equal(forth[image_id], back[image_id]) for image_id in SIZES)


def test_weights_draw_the_mean_to_their_input(tmp_path):
    maps = {"a": np.zeros((3, 5, 7), np.uint8)}, {"a": np.full((3, 5, 7), 200, np.uint8)}
    paths = [write(tmp_path / f"{number}.npz", member) for number, member in enumerate(maps)]
    assert (averaged(paths, {"a": (5, 7)}, weights=[1, 3])["a"] == 150).all()
    assert (averaged(paths, {"a": (5, 7)}, weights=[10, 30])["a"] == 150).all()


def test_disjoint_folds_become_one_run_in_sorted_order(tmp_path):
    maps = random_maps(0)
    first = write(tmp_path / "0.npz", {"c": maps["c"]})
    second = write(tmp_path / "1.npz", {"a": maps["a"], "b": maps["b"]})
    result = averaged([first, second], SIZES)
    assert list(result) == ["a", "b", "c"]
    assert all(np.array_equal(result[image_id], maps[image_id]) for image_id in SIZES)
    with pytest.raises(ValueError, match=r"3 of 3 images are not in all 2 inputs, first a"):
        average_maps([first, second], SIZES, "common")
    with pytest.raises(ValueError, match="weights have no effect"):
        average_maps([first, second], SIZES, weights=[1, 2])


def test_folds_that_overlap_are_refused(tmp_path):
    maps = random_maps(0)
    first = write(tmp_path / "0.npz", {"a": maps["a"], "b": maps["b"]})
    second = write(tmp_path / "1.npz", {"b": maps["b"], "c": maps["c"]})
    with pytest.raises(ValueError, match=r"2 of 3 images are not in all 2 inputs"):
        average_maps([first, second], SIZES)
    with pytest.raises(ValueError, match=r"1 of 3 images are not in one input only, first b"):
        average_maps([first, second], SIZES, "disjoint")


def test_missing_and_unknown_images_are_named(tmp_path):
    path = write(tmp_path / "0.npz", random_maps(0))
    with pytest.raises(ValueError, match=r"1 of 4 images are missing \['d'\]"):
        average_maps([path], SIZES | {"d": (2, 2)})
    with pytest.raises(ValueError, match=r"1 are unknown \['c'\]"):
        average_maps([path], {"a": SIZES["a"], "b": SIZES["b"]})


def test_maps_of_another_size_than_their_image_are_refused(tmp_path):
    path = write(tmp_path / "0.npz", random_maps(0))
    with pytest.raises(ValueError, match=r"0\.npz: maps of image b are \(3, 8, 6\), expected \(3, 6, 8\)"):
        averaged([path], SIZES | {"b": (6, 8)})


def test_one_file_given_twice_and_none_at_all_are_refused(tmp_path):
    path = write(tmp_path / "0.npz", random_maps(0))
    with pytest.raises(ValueError, match="given twice"):
        average_maps([path, tmp_path / "." / "0.npz"], SIZES)
    with pytest.raises(ValueError, match="no maps to average"):
        average_maps([], SIZES)
    for weights in ([1, 2], [0], [float("nan")]):
        with pytest.raises(ValueError, match="expected 1 weights above 0"):
            average_maps([path], SIZES, weights=weights)


def test_the_script_writes_the_same_bytes_twice_and_nothing_on_an_error(tmp_path, processed):
    sizes = {f"image{number:02d}": (96, 128) for number in (8, 9)}
    paths = [write(tmp_path / f"{seed}.npz", random_maps(seed, sizes)) for seed in range(2)]

    def run(out, subset, *others):
        arguments = ["--inputs", *paths, "--out", tmp_path / out, "--subset", subset, *others]
        return run_script("ensemble.py", "--index", processed / "index.csv", *arguments)

    assert run("one.npz", "test").returncode == run("two.npz", "test").returncode == 0
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert Maps(tmp_path / "one.npz").ids == sorted(sizes)
    failed = run("three.npz", "train")
    assert failed.returncode == 1
    assert "8 of 8 images are missing" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not list(tmp_path.glob("*three*"))
    assert "1 --members for 2 --inputs" in run("three.npz", "test", "--members", "first").stderr


def test_the_members_are_written_once_with_the_names_that_are_given(tmp_path, processed):
    sizes = {f"image{number:02d}": (96, 128) for number in range(10)}
    inputs = {}
    for subset, ids in (("train", range(8)), ("test", (8, 9))):
        held = {f"image{number:02d}": sizes[f"image{number:02d}"] for number in ids}
        inputs[subset] = [
            str(write(tmp_path / f"{subset}{seed}.npz", random_maps(seed, held))) for seed in (0, 1)
        ]
    for subset, written in (("test", False), ("train", True)):
        arguments = ["--index", processed / "index.csv", "--inputs", *inputs[subset], "--subset", subset]
        arguments += ["--out", tmp_path / "ensemble" / f"{subset}.npz"]
        arguments += ["--members", "first", "second", "--weights", "1", "3"]
        assert run_script("ensemble.py", *arguments).returncode == 0
        assert (tmp_path / "ensemble" / "members.json").exists() == written
    assert json.loads((tmp_path / "ensemble" / "members.json").read_text()) == {"first": 1.0, "second": 3.0}
