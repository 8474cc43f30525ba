"""Files that one stage writes and another reads: images, label maps, probability maps, tables.

Every file is written under a temporary name beside its place and renamed when it is whole, so a file that exists
is a file that can be read. The same content gives the same bytes.
"""

import hashlib
import json
import mmap
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]
UInt8Array = npt.NDArray[np.uint8]
LabelMap = npt.NDArray[np.int32]

INDEX_COLUMNS = ("image_id", "subset", "image", "label", "height", "width", "nuclei", "modality", "group")
SPLIT_COLUMNS = ("image_id", "fold", "group", "modality", "nuclei")
SETTLED_COLUMNS = ("image_id", "contested_pixels", "left_out")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to `path` when the block ends well and removed when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # always the same name, so that what a killed process left is overwritten by the next
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def release(array: Pixels) -> None:
    """Takes an array that lies on a disk out of the memory; read again, it comes from there. Others stay as they are.

    Pages that were touched count as memory of the process until another needs it, and a limit may not wait for that.
    """
    base: Any = array
    while isinstance(base, np.ndarray) and not hasattr(base, "_mmap"):
        base = base.base
    mapped = getattr(base, "_mmap", base)
    # private pages (mode "c") would lose what was written to them
    if isinstance(mapped, mmap.mmap) and getattr(base, "mode", None) != "c" and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def write_text(path: Path | str, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path | str, frame: Any) -> None:
    """Writes a pandas.DataFrame without its index."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def write_json(path: Path | str, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path | str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256(path: Path | str) -> str:
    """Hexadecimal digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_image(path: Path | str) -> Pixels:
    """Image of a prepared file: RGB (H, W, 3) uint8 or uint16 of a PNG; of a TIFF what it holds, signed and float too.

    Raises:
        ValueError: the file is missing or cannot be decoded.
    """
    if Path(path).suffix.lower() in (".tif", ".tiff"):
        return _read_tiff(path)
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None:
        raise ValueError(f"{path}: no readable image there; run `make data` again to write it anew")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def _read_tiff(path: Path | str) -> Pixels:
    import tifffile

    try:
        image: Pixels = np.asarray(tifffile.imread(path))
    except (OSError, ValueError) as error:  # tifffile's own errors are ValueErrors
        raise ValueError(f"{path}: no readable TIFF ({error}); write it anew") from error
    if not image.size:
        raise ValueError(f"{path}: no readable TIFF (no pixels in it); write it anew")
    return image


def write_image(path: Path | str, image: Pixels) -> None:
    """Writes an RGB image (H, W, 3) uint8 or uint16 as PNG, with one channel where the three are equal."""
    import cv2

    grey = bool((image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all())
    _write_png(path, image[..., 0] if grey else image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 6])


def read_label_map(path: Path | str) -> LabelMap:
    """Label map (H, W) int32 of a 16-bit PNG: 0 background, 1..N nuclei.

    Raises:
        ValueError: the file is missing or is no 16-bit grey PNG.
    """
    import cv2

    label_map = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if label_map is None or label_map.dtype != np.uint16 or label_map.ndim != 2:
        raise ValueError(f"{path}: no 16-bit label map there; run `make data` again to write it anew")
    return label_map.astype(np.int32)


def write_label_map(path: Path | str, label_map: npt.NDArray[np.integer]) -> None:
    """Writes a label map as 16-bit PNG.

    Raises:
        ValueError: more than 65,535 nuclei.
    """
    if label_map.size and int(label_map.max()) > np.iinfo(np.uint16).max:
        raise ValueError(f"{path}: label {int(label_map.max())} does not fit 16 bits (at most 65,535 nuclei)")
    import cv2

    # Label maps are flat: unfiltered and searched less for repetitions they are read in less than half of the time, and
    # still take a tenth of what the images do. OpenCV before 4.12 leaves no choice of the filter.
    unfiltered = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE] if hasattr(cv2, "IMWRITE_PNG_FILTER") else []
    _write_png(path, label_map.astype(np.uint16), [cv2.IMWRITE_PNG_COMPRESSION, 3, *unfiltered])


def _write_png(path: Path | str, pixels: npt.NDArray[Any], flags: list[int]) -> None:
    import cv2

    done, encoded = cv2.imencode(".png", np.ascontiguousarray(pixels), flags)
    if not done:
        raise ValueError(f"{path}: OpenCV cannot encode an array of shape {pixels.shape} and type {pixels.dtype}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def write_maps(path: Path | str, items: Iterable[tuple[str, UInt8Array]]) -> None:
    """Writes maps (C, H, W) uint8 under their image ids, one at a time, as a compressed .npz."""
    deflated = zipfile.ZIP_DEFLATED
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", deflated, compresslevel=3) as archive:
        for image_id, array in items:
            # A ZipInfo of its own carries no time of writing: the same maps give the same bytes.
            member = zipfile.ZipInfo(f"{image_id}.npy")
            member.compress_type = deflated
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


class Maps(Mapping[str, UInt8Array]):
    """The maps of an .npz by image id, each read from disk when it is asked for.

    Raises:
        ValueError: the file is missing or is no .npz; an id that it does not hold.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            # lazily loaded: only the directory of the archive is read here
            self._arrays = np.load(self.path, allow_pickle=False)
            self.ids: list[str] = list(self._arrays.files)
        except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: no maps can be read ({error}); predict again to write them") from error

    def __getitem__(self, image_id: str) -> UInt8Array:
        if image_id not in self:
            raise ValueError(f"{self.path}: holds no maps of image {image_id} (it has {len(self)} images)")
        return np.asarray(self._arrays[image_id], dtype=np.uint8)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._arrays.files

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


def read_table(path: Path | str, columns: tuple[str, ...], remedy: str) -> Any:
    """pandas.DataFrame of a CSV that must have `columns`.

    Raises:
        ValueError: the file is missing, or lacks columns.
    """
    import pandas

    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; {remedy}")
    frame = pandas.read_csv(path, dtype={"image_id": str, "group": str})
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"{path}: columns {missing} are missing (found {list(frame.columns)}); {remedy}")
    return frame


def read_splits(path: Path | str) -> Any:
    """pandas.DataFrame of data/splits.csv: image_id, fold, group, modality, nuclei."""
    return read_table(path, SPLIT_COLUMNS, "run `make splits`")


class Images:
    """The prepared images and label maps of a folder by image id; `index` is its table."""

    def __init__(self, processed: Path | str) -> None:
        self.folder = Path(processed)
        self.index = read_table(self.folder / "index.csv", INDEX_COLUMNS, "run `make data`")
        # a dictionary: looking a row up in pandas takes a tenth of a millisecond, and an image is asked for three
        self._rows: dict[str, dict[str, Any]] = {row["image_id"]: row for row in self.index.to_dict("records")}

    def ids(self, subset: str) -> list[str]:
        """Image ids of `train` or `test` in the order of the index."""
        return list(self.index.image_id[self.index.subset == subset])

    def image(self, image_id: str) -> Pixels:
        """The image as its file holds it, see `read_image`; (H, W, 3) uint8 where `make data` wrote 8 bits."""
        return read_image(self.folder / str(self._row(image_id)["image"]))

    def label_map(self, image_id: str) -> LabelMap:
        row = self._row(image_id)
        if row["subset"] != "train":
            raise ValueError(f"{self.folder}: image {image_id} is a test image and has no label map")
        return read_label_map(self.folder / str(row["label"]))

    def size(self, image_id: str) -> tuple[int, int]:
        """Height and width in pixels."""
        row = self._row(image_id)
        return int(row["height"]), int(row["width"])

    def modality(self, image_id: str) -> str:
        return str(self._row(image_id)["modality"])

    def _row(self, image_id: str) -> dict[str, Any]:
        if image_id not in self._rows:
            raise ValueError(f"{self.folder / 'index.csv'}: unknown image {image_id}; run `make data` again")
        return self._rows[image_id]
