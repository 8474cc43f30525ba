import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nuclei.errors import UserError
from nuclei.io.files import atomic_path, read_json, release, remove_stale_temporaries, sha256, write_text
from nuclei.io.images import read_image, read_label_map, write_image, write_label_map
from nuclei.io.probability_maps import Maps, write_maps

ROOT = Path(__file__).parents[2]
MAPS = [(f"image{i}", np.random.default_rng(i).integers(0, 256, (3, 9, 7 + i), np.uint8)) for i in range(3)]


def test_a_failed_write_leaves_the_earlier_file_and_no_other(tmp_path):
    def fail_half_way():
        with atomic_path(path) as temporary:
            temporary.write_text("hal")
            raise RuntimeError("power cut")

    path = tmp_path / "table.csv"
    write_text(path, "whole")
    with pytest.raises(RuntimeError, match="power"):
        fail_half_way()
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def run_writer(code, folder, **options):
    """A process that runs `code` in `folder`, with atomic_path imported."""
    code = f"from nuclei.io.files import atomic_path\n{code}"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=environment, **options)


KILLED_HALF_WAY = """
import os, signal
with atomic_path("table.csv") as temporary:
    temporary.write_text("hal")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="only POSIX tells whether a process is running")
def test_what_a_killed_process_left_is_removed_by_the_next_writer(tmp_path):
    assert run_writer(KILLED_HALF_WAY, tmp_path).wait() == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.read_text() == "hal"
    write_text(tmp_path / "other.csv", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["other.csv"]


SLOW = """
import sys
with atomic_path("table.csv") as temporary, open(temporary, "w") as file:
    file.write(sys.argv[0] * 1000)
    file.flush()
    print("half", flush=True)
    input()
    file.write("end")
"""


def test_two_processes_that_write_one_file_both_end_well_and_the_file_is_one_of_theirs(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [run_writer(SLOW, tmp_path, **pipes) for _ in range(2)]
    assert [writer.stdout.readline() for writer in writers] == ["half\n", "half\n"]
    assert len(list(tmp_path.iterdir())) == 2
    for writer in writers:
        writer.communicate("\n")
        assert writer.returncode == 0
        assert (tmp_path / "table.csv").read_text() == "-c" * 1000 + "end"
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_the_temporary_file_of_another_machine_is_kept_for_a_day(tmp_path):
    path = tmp_path / ".table.csv.0123abcd-1-0123abcd.tmp"
    path.write_text("half")
    assert remove_stale_temporaries(tmp_path) == 0
    os.utime(path, (0, 0))
    assert remove_stale_temporaries(tmp_path) == 1


def test_a_file_of_another_name_is_never_taken_for_a_temporary_one(tmp_path):
    for name in ("notes.tmp", ".notes.tmp", "a.0123abcd-1-0123abcd.tmp", ".a.0123abcd-1-0123abcd.tmp.txt"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    assert remove_stale_temporaries(tmp_path) == 0


def test_a_file_may_have_the_longest_name_that_the_system_allows(tmp_path):
    write_text(tmp_path / ("ä" * 127), "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["ä" * 127]


@pytest.mark.parametrize("grey", [True, False])
def test_images_come_back_as_they_were(tmp_path, grey):
    image = np.random.default_rng(0).integers(0, 256, (17, 23, 3), np.uint8)
    if grey:
        image[:] = image[..., :1]
    write_image(tmp_path / "a.png", image)
    assert np.array_equal(read_image(tmp_path / "a.png"), image)


def test_label_maps_come_back_up_to_the_last_label_of_16_bits(tmp_path):
    label_map = np.arange(300 * 220, dtype=np.int32).reshape(300, 220).clip(max=65_535)
    write_label_map(tmp_path / "a.png", label_map)
    assert np.array_equal(read_label_map(tmp_path / "a.png"), label_map)
    with pytest.raises(ValueError, match="65,535"):
        write_label_map(tmp_path / "a.png", label_map + 1)


@pytest.mark.parametrize(("dtype", "name"), [("uint16", "a.png"), ("int16", "a.tif"), ("float32", "a.TIFF")])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_deep_images_keep_their_values(tmp_path, dtype, name, shape):
    image = (np.random.default_rng(0).normal(size=shape) * 3000 + 9000).astype(dtype)
    if name.endswith("png"):
        image = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image
        write_image(tmp_path / name, image)
    else:
        tifffile.imwrite(tmp_path / name, image)
    read = read_image(tmp_path / name)
    assert read.dtype == image.dtype
    assert np.array_equal(read, image)


def test_a_damaged_tiff_is_named(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0 half a file")
    with pytest.raises(ValueError, match=r"a\.tif: no readable TIFF"):
        read_image(tmp_path / "a.tif")


def test_an_image_is_no_label_map(tmp_path):
    write_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="no 16-bit label map"):
        read_label_map(tmp_path / "a.png")
    with pytest.raises(ValueError, match="no readable image"):
        read_image(tmp_path / "missing.png")


def test_maps_come_back_and_the_same_maps_give_the_same_bytes(tmp_path):
    write_maps(tmp_path / "a.npz", MAPS)
    write_maps(tmp_path / "b.npz", iter(MAPS))
    maps = Maps(tmp_path / "a.npz")
    assert maps.ids == [image_id for image_id, _ in MAPS]
    assert all(np.array_equal(maps[image_id], array) for image_id, array in MAPS)
    assert sha256(tmp_path / "a.npz") == sha256(tmp_path / "b.npz")


def test_missing_maps_are_named(tmp_path):
    write_maps(tmp_path / "a.npz", MAPS)
    with pytest.raises(ValueError, match=r"a\.npz: holds no maps of image unknown"):
        Maps(tmp_path / "a.npz")["unknown"]
    for size in (0, 100):
        (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:size])
        with pytest.raises(ValueError, match=r"b\.npz: no readable probability maps"):
            Maps(tmp_path / "b.npz")


def test_damaged_maps_and_maps_of_another_kind_are_named(tmp_path):
    write_maps(tmp_path / "a.npz", MAPS)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[60] ^= 255
    (tmp_path / "b.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"b\.npz: damaged at image .*; predict again"):
        Maps(tmp_path / "b.npz")[MAPS[0][0]]
    np.savez(tmp_path / "c.npz", a=np.zeros((2, 2), np.float32))
    with pytest.raises(UserError, match="image a has 2 dimensions of float32, expected 3 of uint8"):
        Maps(tmp_path / "c.npz")["a"]


def test_a_full_disk_is_said_with_the_file_that_did_not_fit(tmp_path):
    path = tmp_path / "table.csv"
    with pytest.raises(OSError, match=r"No space left on device: '.*/table\.csv'"), atomic_path(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_system_without_rename_keeps_the_old_file_and_no_other(tmp_path, monkeypatch):
    (tmp_path / "table.csv").write_text("old")

    def refuse(source, target):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), str(source), None, str(target))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match=r"not supported: .* -> '.*/table\.csv'"):
        write_text(tmp_path / "table.csv", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert (tmp_path / "table.csv").read_text() == "old"


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "9" * 5000])
def test_a_file_that_is_no_json_is_named(tmp_path, content):
    (tmp_path / "note.json").write_text(content)
    with pytest.raises(UserError, match=r"note\.json: not valid JSON .*delete it"):
        read_json(tmp_path / "note.json")


def test_images_are_known_by_their_ids(images):
    assert images.image("image00").shape == (96, 128, 3)
    assert images.size("image09") == (96, 128)
    with pytest.raises(ValueError, match="unknown image nobody"):
        images.image("nobody")
    with pytest.raises(ValueError, match="is a test image and has no label map"):
        images.label_map("image09")


def held_in_memory():
    """MiB of files that are mapped into this process and held in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(("RssFile", "RssShmem")))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_array_on_the_disk_leaves_the_memory_and_keeps_what_was_written(tmp_path):
    array = np.memmap(tmp_path / "array", np.uint8, "w+", shape=(64, 1024, 1024))
    array[:] = np.arange(64, dtype=np.uint8)[:, None, None]
    before = held_in_memory()
    release(array[3:].transpose(1, 2, 0))
    assert held_in_memory() < before - 60
    assert array[:, 5, 7].tolist() == list(range(64))
    private = np.memmap(tmp_path / "array", np.uint8, "c", shape=(64, 1024, 1024))
    private[9] = 200
    release(private)
    assert private[9].min() == 200
    release(np.zeros(3))
