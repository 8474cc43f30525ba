"""Probability maps as .npz files of uint8, and their weighted mean."""

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from nuclei.arrays import LabelMap, UInt8Array
from nuclei.errors import UserError
from nuclei.io.files import atomic_path

_DAMAGED = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What reading an archive raises where its bytes were changed; a RuntimeError of one with a password."""


def write_maps(path: Path | str, items: Iterable[tuple[str, UInt8Array]]) -> None:
    """Writes maps (C, H, W) uint8 by image id, one at a time, as a compressed .npz."""
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive,
    ):
        for image_id, array in items:
            # a new ZipInfo holds no time, so equal maps give equal bytes
            member = zipfile.ZipInfo(f"{image_id}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


class Maps(Mapping[str, UInt8Array]):
    """Probability maps (C, H, W) uint8 of an .npz by image id; read from disk on access.

    Raises:
        UserError: the file is missing, no .npz or damaged; an unknown id; maps of another kind.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            # only the directory of the archive is read here
            self._arrays = np.load(self.path, allow_pickle=False)
            self.ids: list[str] = list(self._arrays.files)
        except (*_DAMAGED, AttributeError) as error:
            raise UserError(f"{path}: no readable probability maps ({error}); predict again") from error

    def __getitem__(self, image_id: str) -> UInt8Array:
        if image_id not in self:
            raise UserError(
                f"{self.path}: holds no maps of image {image_id} among its {len(self)} images; predict again"
            )
        try:
            maps: UInt8Array = self._arrays[image_id]
        except _DAMAGED as error:
            raise UserError(
                f"{self.path}: damaged at image {image_id} ({error!s:.200}); predict again"
            ) from error
        if maps.dtype != np.uint8 or maps.ndim != 3:
            raise UserError(
                f"{self.path}: image {image_id} has {maps.ndim} dimensions of {maps.dtype}, expected 3 of uint8; "
                "predict again"
            )
        return maps

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._arrays.files

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


def mean_of_maps(maps: Sequence[UInt8Array], weights: Sequence[float] | None = None) -> UInt8Array:
    """Weighted mean of probability maps (C, H, W) uint8 of one image; halves are rounded up."""
    weights = weights or [1.0] * len(maps)
    total = np.zeros(maps[0].shape, np.float64)
    for each, weight in zip(maps, weights, strict=True):
        total += float(weight) * each
    # np.round would round halves to even; the small number absorbs rounding errors of the sum
    return np.floor(total / sum(weights) + 0.5 + 1e-9).astype(np.uint8)


def read_maps(archive: Maps, image_id: str, truth: LabelMap, folder: Path) -> UInt8Array:
    """Maps (C, H, W) of an image whose label map `truth` (H, W) is in `folder`.

    Raises:
        UserError: the sizes of maps and label map differ.
    """
    maps = archive[image_id]
    if maps.shape[1:] != truth.shape:
        raise UserError(
            f"{archive.path}: maps of image {image_id} are {maps.shape}, its label map in {folder} is {truth.shape}; "
            "predict again from the prepared images"
        )
    return maps
