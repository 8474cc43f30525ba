"""Annotations of training images: mask files of one nucleus each, merged into a label map.

Masks that are not two-valued are recognised. Soft masks are thresholded at half of their largest
value, a label map in place of masks is used as it is, and a mask of many nuclei is refused.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nuclei.arrays import Int64Array, LabelMap, Pixels
from nuclei.errors import UserError

MAX_PIXELS = 100_000_000
"""Larger images are refused by their header, before memory is allocated."""
PIECE = 10
"""Smallest area in pixels of a connected piece that counts; smaller ones are specks or soft
rims."""
MANY_PIECES = 3
"""Pieces from which a mask holds several nuclei. Masks of the competition have at most two."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Annotation:
    """Label map merged from an image's masks, and the conflicts between them."""

    label_map: LabelMap
    contested_pixels: int = 0
    """Pixels in two masks or more."""
    left_out: tuple[str, ...] = ()
    """Names of mask files that are empty, or whose pixels all belong to smaller nuclei."""
    soft: tuple[str, ...] = ()
    """Names of mask files that are not two-valued and were thresholded."""
    is_label_map: bool = False
    """Whether the annotation was one label map instead of masks."""


def read_annotation(folder: Path, shape: tuple[int, int]) -> Annotation:
    """Annotation of an image of `shape` (height, width) from its folder of masks; may be empty.

    Raises:
        UserError: no folder; a mask that cannot be read, has another size than the image, or holds
            several nuclei.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: the masks are missing; unpack stage1_train.zip again, or remove {folder.parent}"
        )
    paths = sorted(path for path in folder.glob("*.png") if not path.name.startswith("."))
    if len(paths) == 1:
        return _read_only_file(paths[0], shape)
    masks, soft = [], []
    for path in paths:
        values = _read_values(path, shape)
        if _is_soft(values):
            soft.append(path.name)
        elif _count_values(values) > 2:
            raise UserError(
                f"{path}: one of {len(paths)} masks has {_count_values(values) - 1} values beside "
                "0, as a label map has; give one mask of 0 and 255 for each nucleus, or only the "
                "label map"
            )
        masks.append(_threshold(values))
    merged = merge_masks([path.name for path in paths], masks, shape)
    return Annotation(merged.label_map, merged.contested_pixels, merged.left_out, tuple(soft))


def merge_masks(names: Sequence[str], masks: Iterable[Mask], shape: tuple[int, int]) -> Annotation:
    """Annotation of an image of `shape` from one mask (H, W) per nucleus, labelled in their order.

    A pixel in several masks gets the label of the smallest one, so that a large nucleus does not
    swallow a small one; of equal ones that of the first.
    """
    pixels = [np.flatnonzero(mask) for mask in masks]
    label_map = np.zeros(shape[0] * shape[1], np.int32)
    claims = np.zeros(shape[0] * shape[1], np.uint16)
    for number in sorted(range(len(pixels)), key=lambda k: (-len(pixels[k]), -k)):
        label_map[pixels[number]] = number + 1
        claims[pixels[number]] += 1
    present = np.bincount(label_map, minlength=len(pixels) + 1) > 0
    left_out = tuple(name for name, kept in zip(names, present[1:], strict=True) if not kept)
    return Annotation(number_labels(label_map).reshape(shape), int((claims > 1).sum()), left_out)


def read_png(path: Path) -> Pixels:
    """Pixels of a PNG as OpenCV decodes them (BGR), uint8 or uint16; checks the header first.

    Raises:
        UserError: no PNG, a damaged one, or more than MAX_PIXELS pixels.
    """
    encoded = path.read_bytes()
    if len(encoded) < 33 or encoded[:8] != b"\x89PNG\r\n\x1a\n" or encoded[12:16] != b"IHDR":
        raise UserError(f"{path}: not a PNG file ({len(encoded)} bytes); unpack the archive again")
    width, height = struct.unpack(">II", encoded[16:24])
    if width * height > MAX_PIXELS:
        raise UserError(
            f"{path}: {width}x{height} pixels, more than the limit of {MAX_PIXELS:,}; cut it into tiles"
        )
    pixels: Any = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{path}: a damaged PNG file ({len(encoded)} bytes); unpack the archive again")
    decoded: Pixels = pixels
    return decoded


def _read_only_file(path: Path, shape: tuple[int, int]) -> Annotation:
    """Annotation of an image with one mask file: one nucleus, or a label map of all nuclei."""
    values = _read_values(path, shape)
    if _count_values(values) > 2 and not _is_soft(values):
        return Annotation(number_labels(values), is_label_map=True)
    mask = _threshold(values)
    pieces = count_pieces(mask)
    if pieces >= MANY_PIECES:
        raise UserError(
            f"{path}: the only mask of its image has {pieces} separate pieces, which are not one "
            "nucleus; give one mask per nucleus, or a label map with a value per nucleus"
        )
    merged = merge_masks([path.name], [mask], shape)
    soft = (path.name,) if _is_soft(values) else ()
    return Annotation(merged.label_map, 0, merged.left_out, soft)


def _read_values(path: Path, shape: tuple[int, int]) -> Int64Array:
    """Values (H, W) of a mask file, 0 is background; colours become numbers."""
    pixels = read_png(path)
    if pixels.shape[:2] != shape:
        raise UserError(
            f"{path}: the mask is {pixels.shape[0]}x{pixels.shape[1]} pixels (height x width), "
            f"its image {shape[0]}x{shape[1]}; unpack stage1_train.zip again, or remove the mask"
        )
    values = pixels.astype(np.int64)
    if values.ndim == 2:
        return values
    blue, green, red = (values[..., channel] for channel in range(3))
    is_grey = bool((blue == green).all() and (blue == red).all())
    return red if is_grey else (red << 32) + (green << 16) + blue


def _count_values(values: Int64Array) -> int:
    """Number of different values, 0 included."""
    return len(np.unique(values[values > 0])) + 1


def _is_soft(values: Int64Array) -> bool:
    """Whether the values are grades of one mask (blurred, anti-aliased, JPEG), not labels.

    Labels form pieces of the size of nuclei, grades pieces of a few pixels.
    """
    if _count_values(values) <= 2:
        return False
    areas = _piece_areas(values)
    return bool((areas >= PIECE).sum() < len(areas) / 2)


def count_pieces(mask: Mask) -> int:
    """Number of connected pieces of a mask (H, W), without those below PIECE pixels."""
    return int((_piece_areas(mask.astype(np.int64)) >= PIECE).sum())


def _piece_areas(values: Int64Array) -> Int64Array:
    """Areas in pixels of the connected pieces of equal values above 0."""
    from skimage.measure import label as connected_pieces

    pieces = connected_pieces(values, background=0, connectivity=2)
    return np.asarray(np.bincount(pieces.ravel())[1:], np.int64)


def _threshold(values: Int64Array) -> Mask:
    """Mask (H, W): pixels above half of the largest value."""
    return np.asarray(2 * values > values.max())


def number_labels(labels: npt.NDArray[np.integer[Any]]) -> LabelMap:
    """The labels as 1..N in their order, 0 stays 0."""
    values, numbers = np.unique(labels, return_inverse=True)
    first = 0 if len(values) and values[0] == 0 else 1
    return np.asarray(numbers.reshape(labels.shape) + first, np.int32)
