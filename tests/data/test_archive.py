"""An archive is unpacked only if it is sound, and nothing is ever written outside of its folder."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from sample_archives import TEST, TRAIN, TRAIN_ZIP, corrupt, make_png, make_zip, read_tree

from nuclei.data import archive
from nuclei.errors import DamagedArchiveError

PICTURE = make_png(5)
BOMB = {f"train00/masks/b{i}.png": bytes(2**24) for i in range(8)}


def make_link_zip() -> bytes:
    buffer = io.BytesIO(TRAIN_ZIP)
    with zipfile.ZipFile(buffer, "a") as target:
        link = zipfile.ZipInfo("train00/masks/link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        target.writestr(link, "/etc/passwd")
    return buffer.getvalue()


def make_encrypted_zip() -> bytes:
    """The flag alone, in the entry's own header and in the directory."""
    content = bytearray(TRAIN_ZIP)
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def make_lying_zip(stated: int, size: int) -> bytes:
    """A zip whose mask of `size` zeros states another size in both of its headers."""
    content = make_zip(TRAIN | {"train00/masks/m.png": bytes(size)}, zipfile.ZIP_DEFLATED)
    assert content.count(size.to_bytes(4, "little")) == 2
    return content.replace(size.to_bytes(4, "little"), stated.to_bytes(4, "little"))


DAMAGED = {
    "truncated": (
        TRAIN_ZIP[: len(TRAIN_ZIP) // 2],
        r"stage1_train.zip: a zip file cut off at \d+ bytes; expected a zip",
    ),
    "web page": (b"<!DOCTYPE html><html>please log in</html>", "a web page of 41 bytes"),
    "empty": (b"", "0 bytes of another kind"),
    "more than stated": (make_lying_zip(1000, 123_456), "masks/m.png is damaged .*CRC"),
    "less than stated": (make_lying_zip(130_000, 123_456), "masks/m.png (is damaged|has 123456 bytes)"),
    "checksum": (corrupt(TRAIN_ZIP), r"train00.png is damaged .*CRC"),
    "no PNG": (make_zip(TRAIN | {"train00/masks/m.png": b"GIF89a"}), "masks/m.png is not a complete PNG"),
    "cut PNG": (make_zip(TRAIN | {"train00/masks/m.png": PICTURE[:-20]}), "masks/m.png is not a complete PNG"),
}
FOREIGN = {
    "parent": (make_zip(TRAIN | {"../evil/masks/x.png": PICTURE}), "outside of its folder"),
    "inner parent": (make_zip(TRAIN | {"a/../../masks/x.png": PICTURE}), "outside of its folder"),
    "absolute": (make_zip(TRAIN | {"/tmp/masks/x.png": PICTURE}), "outside of its folder"),
    "drive": (make_zip(TRAIN | {"C:/masks/x.png": PICTURE}), "outside of its folder"),
    "backslash": (make_zip(TRAIN | {"..\\masks/x.png": PICTURE}), "outside of its folder"),
    "unsafe but unused": (make_zip(TRAIN | {"../notes.txt": b"x"}), "outside of its folder"),
    "link": (make_link_zip(), "link.png' is a link or device"),
    "encrypted": (make_encrypted_zip(), "train00.png cannot be unpacked .*encrypted"),
    "same on some systems": (
        make_zip(TRAIN | {"train00/masks/M0.png": PICTURE}),
        "are the same file on some systems",
    ),
    "two places": (make_zip(TRAIN | {"x/train00/masks/m0.png": PICTURE}), r"are in \['', 'x'\]"),
    "bomb": (make_zip(TRAIN | BOMB, zipfile.ZIP_DEFLATED), "a zip bomb"),
    "two images": (make_zip(TRAIN | {"train00/images/other.png": PICTURE}), "train00 should hold one image"),
    "misnamed image": (
        make_zip(TRAIN | {"z/images/y.png": PICTURE, "z/masks/m.png": PICTURE}),
        "z should hold one",
    ),
    "no image": (make_zip(TRAIN | {"z/masks/m.png": PICTURE}), r"z should hold one image .* found \[\]"),
    "no masks": (make_zip(TRAIN | {"z/images/z.png": PICTURE}), "z has no mask"),
    "archive of tests": (
        make_zip({f"stage1_test/{path}": content for path, content in TEST.items()}),
        "are in",
    ),
    "nothing in layout": (make_zip({"readme.txt": b"hello"}), "no folder at all; expected <id>/images"),
}


def unpack(tmp_path: Path, content: bytes) -> archive.Tree:
    """Unpacks a file named stage1_train.zip into `tmp_path/inner/tree`."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "stage1_train.zip").write_bytes(content)
    return archive.unpack(tmp_path / "stage1_train.zip", "stage1_train", tmp_path / "inner" / "tree")


@pytest.mark.parametrize("fault", DAMAGED)
def test_damaged_archive_is_told_from_a_foreign_one(tmp_path: Path, fault: str) -> None:
    content, message = DAMAGED[fault]
    with pytest.raises(DamagedArchiveError, match=message):
        unpack(tmp_path, content)


@pytest.mark.parametrize("fault", FOREIGN)
def test_foreign_or_unsafe_archive_is_refused_and_nothing_is_written(tmp_path: Path, fault: str) -> None:
    content, message = FOREIGN[fault]
    with pytest.raises(ValueError, match=message) as caught:
        unpack(tmp_path, content)
    assert not isinstance(caught.value, DamagedArchiveError)
    assert read_tree(tmp_path) == {"stage1_train.zip": content}


def test_twice_the_same_entry_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO(TRAIN_ZIP)
    with zipfile.ZipFile(buffer, "a") as target, pytest.warns(UserWarning, match="Duplicate name"):
        target.writestr("train00/masks/m0.png", PICTURE)
    with pytest.raises(ValueError, match="are the same file"):
        unpack(tmp_path, buffer.getvalue())


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory in KiB")
def test_a_zip_that_lies_about_its_size_is_refused_without_filling_the_memory(tmp_path: Path) -> None:
    (tmp_path / "stage1_train.zip").write_bytes(make_lying_zip(1000, 2**28 + 1))
    code = f"""
import resource
from pathlib import Path
from nuclei.data import archive
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    archive.unpack(Path({str(tmp_path)!r}, "stage1_train.zip"), "stage1_train", Path({str(tmp_path)!r}, "out"))
except archive.DamagedArchiveError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert int(done.stdout) < 64 * 1024, done.stderr


def test_a_huge_directory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    content = bytearray(TRAIN_ZIP)
    end = content.rindex(b"PK\x05\x06")
    content[end + 12 : end + 16] = (2**27).to_bytes(4, "little")
    with pytest.raises(ValueError, match="a directory of 134217728 bytes, expected at most"):
        unpack(tmp_path, bytes(content))


@pytest.mark.parametrize("image_id", ["a b", "=1+1", "a,b", "x<img src=x>"])
def test_an_unsafe_image_id_is_refused(tmp_path: Path, image_id: str) -> None:
    files = {f"{image_id}/images/{image_id}.png": PICTURE, f"{image_id}/masks/m.png": PICTURE}
    with pytest.raises(ValueError, match=r"1 of 4 image ids: .* is not a valid name"):
        unpack(tmp_path, make_zip(TRAIN | files))


@pytest.mark.parametrize(
    ("name", "limit"), [("MAX_FILE_BYTES", 500), ("MAX_TOTAL_BYTES", 5000), ("MAX_FILES", 8)]
)
def test_archive_past_a_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: int
) -> None:
    monkeypatch.setattr(archive, name, limit)
    with pytest.raises(ValueError, match=str(limit)):
        unpack(tmp_path, TRAIN_ZIP)


def test_files_of_the_desktop_are_ignored_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    extra = {".DS_Store": b"x", "__MACOSX/train00/images/._train00.png": b"x", "train00/masks/._m0.png": b"x"}
    unpack(tmp_path, make_zip(extra | TRAIN))
    assert read_tree(tmp_path / "inner" / "tree") == TRAIN
    assert "3 other files ignored, the first .DS_Store" in caplog.text


@pytest.mark.parametrize("prefix", ["", "stage1_train/", "fixes-master/stage1_train/", "data/"])
def test_folders_around_the_images_are_stripped(tmp_path: Path, prefix: str) -> None:
    unpack(tmp_path, make_zip({prefix + path: content for path, content in TRAIN.items()}))
    assert read_tree(tmp_path / "inner" / "tree") == TRAIN


def test_subset_is_chosen_from_an_archive_of_both(tmp_path: Path) -> None:
    both = {f"stage1_train/{p}": c for p, c in TRAIN.items()} | {f"stage1_test/{p}": c for p, c in TEST.items()}
    assert unpack(tmp_path, make_zip(both)).image_ids == ("train00", "train01", "train02")


def test_tree_is_described_by_ids_masks_size_and_the_digest_of_sha256sum(tmp_path: Path) -> None:
    tree = unpack(tmp_path, make_zip(dict(reversed(TRAIN.items())), zipfile.ZIP_DEFLATED))
    assert (tree.image_ids, tree.masks) == (("train00", "train01", "train02"), 6)
    assert tree.size == sum(map(len, TRAIN.values()))
    command = "find . -type f | sed 's|^./||' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    done = subprocess.run(
        command, shell=True, cwd=tmp_path / "inner" / "tree", capture_output=True, text=True, check=True
    )
    assert tree.sha256 == done.stdout.split()[0]


def test_folder_that_leads_into_itself_is_read_to_its_end(tmp_path: Path) -> None:
    for path, content in TRAIN.items():
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / path).write_bytes(content)
    (tmp_path / "tree" / "train00" / "masks" / "loop").symlink_to(tmp_path / "tree")
    with pytest.raises(ValueError, match="the images of stage1_train are in"):
        archive.unpack(tmp_path / "tree", "stage1_train", tmp_path / "out")
