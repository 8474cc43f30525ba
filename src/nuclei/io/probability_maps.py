"""Files of probability maps (.npz, uint8), and their weighted mean."""

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from nuclei.arrays import LabelMap, UInt8Array
from nuclei.errors import UserError
from nuclei.io.files import atomic_path


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
        UserError: the file is missing or is no .npz; an id that it does not hold.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            # lazily loaded: only the directory of the archive is read here
            self._arrays = np.load(self.path, allow_pickle=False)
            self.ids: list[str] = list(self._arrays.files)
        except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: no maps can be read ({error}); predict again to write them") from error

    def __getitem__(self, image_id: str) -> UInt8Array:
        if image_id not in self:
            raise UserError(f"{self.path}: holds no maps of image {image_id} (it has {len(self)} images)")
        return np.asarray(self._arrays[image_id], dtype=np.uint8)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._arrays.files

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


def mean_of_maps(maps: Sequence[UInt8Array], weights: Sequence[float] | None = None) -> UInt8Array:
    """The mean of an image's maps, all (C, H, W) uint8, alike or by weights; halves round up."""
    weights = weights or [1.0] * len(maps)
    total = np.zeros(maps[0].shape, np.float64)
    for each, weight in zip(maps, weights, strict=True):
        total += float(weight) * each
    # not np.round, which takes halves to the even neighbour; the margin outlasts the rounding of the sum
    return np.floor(total / sum(weights) + 0.5 + 1e-9).astype(np.uint8)


def read_maps(archive: Maps, image_id: str, truth: LabelMap, folder: Path) -> UInt8Array:
    """The maps of an image (C, H, W); `folder` is where its label map `truth` (H, W) was prepared.

    Raises:
        UserError: maps of another size than the image's label map.
    """
    maps = archive[image_id]
    if maps.shape[1:] != truth.shape:
        raise UserError(
            f"{archive.path}: maps of image {image_id} are {maps.shape}, its label map in {folder} is {truth.shape}; "
            "predict again from the prepared images of now"
        )
    return maps
