"""A folder or zip of `images/` and `labels/` as the data set, in the competition's layout.

`images/<name>.png` with a label map `labels/<name>.png` is a training image, one without is a test
image.
"""

import hashlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from nuclei.errors import UserError
from nuclei.io.files import atomic_path
from nuclei.io.names import check_name

IMAGES, LABELS = "images", "labels"
Files = dict[str, Callable[[], bytes]]
"""Content of a file by the name of its image."""


def is_labelled_folder(path: Path) -> bool:
    """Whether a path is a folder or zip with PNGs in `images/` and in `labels/`."""
    if path.is_file() and not zipfile.is_zipfile(path):
        return False
    return path.exists() and all(_list_files(path, kind) for kind in (IMAGES, LABELS))


def digest_folder(path: Path) -> str:
    """A short digest of names, sizes and times, which changes with the files."""
    files = [path] if path.is_file() else sorted(path.glob("*/*.png"))
    text = [
        f"{file.relative_to(path.parent)} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files
    ]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:12]


def write_archive(path: Path, subset: str, out: Path) -> None:
    """Writes `stage1_train.zip` (images with a label map) or `stage1_test.zip` (without) to `out`.

    Raises:
        UserError: no such image; a label map without its image, or that is none; an unsafe name.
    """
    images, labels = _list_files(path, IMAGES), _list_files(path, LABELS)
    alone = sorted(labels.keys() - images.keys())
    if alone:
        raise UserError(
            f"{path}: {LABELS}/{alone[0]}.png has no {IMAGES}/{alone[0]}.png; add it, or remove the labels"
        )
    is_training = subset == "stage1_train"
    chosen = sorted(name for name in images if (name in labels) == is_training)
    if not chosen:
        kind = "with" if is_training else "without"
        raise UserError(
            f"{path}: no image {kind} a label map; images with one are trained on, and those "
            "without one are the test images, which are predicted: give some of both"
        )
    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in chosen:
            check_name(name)
            archive.writestr(zipfile.ZipInfo(f"{name}/images/{name}.png"), images[name]())
            if is_training:
                for number, mask in enumerate(_read_masks(path, name, labels[name]()), 1):
                    archive.writestr(zipfile.ZipInfo(f"{name}/masks/{number:05d}.png"), mask)


def _read_masks(path: Path, name: str, content: bytes) -> Iterator[bytes]:
    """The mask of each nucleus of a label map as PNG; an empty one where there is no nucleus."""
    label_map = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if label_map is None or label_map.ndim != 2:
        raise UserError(
            f"{path}: {LABELS}/{name}.png is no grey label map; give 0 for background, 1 to N for nuclei"
        )
    for number in np.unique(label_map[label_map > 0]).tolist() or [-1]:
        yield cv2.imencode(".png", (label_map == number).astype(np.uint8) * 255)[1].tobytes()


def _list_files(path: Path, kind: str) -> Files:
    """Files of `images` or `labels`, in a zip below any folder."""
    if path.is_dir():
        return {file.stem: file.read_bytes for file in sorted((path / kind).glob("*.png"))}
    with zipfile.ZipFile(path) as archive:
        members = [PurePosixPath(name) for name in archive.namelist()]
    return {
        member.stem: _reader(path, str(member))
        for member in members
        if member.suffix == ".png" and member.parent.name == kind and not member.name.startswith(".")
    }


def _reader(path: Path, member: str) -> Callable[[], bytes]:
    def read() -> bytes:
        with zipfile.ZipFile(path) as archive:
            return archive.read(member)

    return read
