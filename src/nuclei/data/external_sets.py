"""External data sets: annotated nuclei from elsewhere, trained on beside the competition's images.

A set is a folder or zip of `images/<name>.png` (8 or 16 bits, grey or RGB) and `labels/<name>.png`
(16-bit label maps of the same size). The set is the source of its images. It is never scored as the
competition's.
"""

import zipfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nuclei.arrays import LabelMap, Pixels
from nuclei.data.prepared_images import Images
from nuclei.data.set_provenance import PROVENANCE, SetProvenance, unstated
from nuclei.data.splits import Fold
from nuclei.errors import UserError
from nuclei.io.records import parse_json, validate_record

IMAGES, LABELS = "images", "labels"
_REMEDY = "make the set again with `make external`, or delete the file"


class ExternalSet:
    """Images and label maps of a folder or zip by id `<set>/<name>`; the set has the folder's name.

    Raises:
        UserError: no folder or zip there; images without label maps, or label maps without images.
    """

    def __init__(self, path: Path) -> None:
        self.name, self.path = path.stem, path
        if not path.exists():
            raise UserError(f"{path}: no such folder or zip; give one with {IMAGES}/ and {LABELS}/")
        self._zip = zipfile.ZipFile(path) if path.is_file() else None
        images, labels = self._names(IMAGES), self._names(LABELS)
        if not images or images != labels:
            odd = sorted(images ^ labels)[:3]
            raise UserError(
                f"{path}: {len(images)} images and {len(labels)} label maps, not in pairs: {odd}; "
                f"give each {IMAGES}/<name>.png a label map {LABELS}/<name>.png"
            )
        self.ids = [f"{self.name}/{name}" for name in sorted(images)]
        self.stated = self._read_provenance()
        """What the set says of itself, None where it says nothing."""

    def image(self, image_id: str) -> Pixels:
        """RGB image (H, W, 3) uint8 or uint16."""
        decoded = self._decode(IMAGES, image_id, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))

    def label_map(self, image_id: str) -> LabelMap:
        """Label map (H, W) int32, 0 background."""
        decoded = self._decode(LABELS, image_id, cv2.IMREAD_UNCHANGED)
        if decoded.ndim != 2:
            raise UserError(f"{self.path}: the label map of {image_id} has colours; give grey label maps")
        return decoded.astype(np.int32)

    def files(self, image_id: str) -> list[bytes]:
        """The bytes of the image's file and of its label map's."""
        return [self._read(IMAGES, image_id), self._read(LABELS, image_id)]

    def _read_provenance(self) -> SetProvenance | None:
        if self._zip is not None:
            has_one, source = PROVENANCE in self._zip.namelist(), f"{self.path}: {PROVENANCE}"
            content = self._zip.read(PROVENANCE) if has_one else b""
        else:
            path = self.path / PROVENANCE
            content, source = path.read_bytes() if path.is_file() else b"", str(path)
        if not content:
            return None
        return validate_record(parse_json(content, source, _REMEDY), SetProvenance, source, _REMEDY)

    def _names(self, kind: str) -> set[str]:
        if self._zip is not None:
            files: Iterable[Path] = map(Path, self._zip.namelist())
        else:
            files = (self.path / kind).glob("*.png")
        return {file.stem for file in files if file.suffix == ".png" and file.parent.name == kind}

    def _decode(self, kind: str, image_id: str, flags: int) -> Pixels:
        decoded: Any = cv2.imdecode(np.frombuffer(self._read(kind, image_id), np.uint8), flags)
        if decoded is None:
            raise UserError(f"{self.path}: {_member(kind, image_id)} is not a readable PNG; get the set again")
        return np.asarray(decoded)

    def _read(self, kind: str, image_id: str) -> bytes:
        member = _member(kind, image_id)
        return self._zip.read(member) if self._zip else (self.path / member).read_bytes()


def _member(kind: str, image_id: str) -> str:
    return f"{kind}/{image_id.partition('/')[2]}.png"


class PooledImages:
    """Images of the competition and of external sets by image id, with the methods of `Images`."""

    def __init__(
        self, images: Images, sets: Iterable[ExternalSet] = (), known: Mapping[str, SetProvenance] | None = None
    ) -> None:
        """`known` is what is known of sets that say nothing of themselves, by name."""
        self.images, self.sets = images, {each.name: each for each in sets}
        self.provenance = [
            each.stated or (known or {}).get(each.name) or unstated(each.name) for each in self.sets.values()
        ]
        self._set_of = {image_id: each for each in self.sets.values() for image_id in each.ids}

    def ids(self, subset: str) -> list[str]:
        """Image ids of a subset of the competition (`train`, `test`) or of an external set."""
        return list(self.sets[subset].ids) if subset in self.sets else self.images.ids(subset)

    def image(self, image_id: str) -> Pixels:
        return self._owner(image_id).image(image_id)

    def label_map(self, image_id: str) -> LabelMap:
        return self._owner(image_id).label_map(image_id)

    def files(self, image_id: str) -> list[bytes]:
        return self._owner(image_id).files(image_id)

    def modality(self, image_id: str) -> str:
        """The competition's modality, or the name of the set."""
        owner = self._owner(image_id)
        return owner.name if isinstance(owner, ExternalSet) else owner.modality(image_id)

    def source(self, image_id: str) -> str:
        """The series that the image comes from, or the name of the set."""
        owner = self._owner(image_id)
        return owner.name if isinstance(owner, ExternalSet) else owner.source(image_id)

    def _owner(self, image_id: str) -> Images | ExternalSet:
        return self._set_of.get(image_id, self.images)


def add_external(
    images: Images,
    fold: Fold,
    folder: Path | None,
    names: Collection[str],
    known: Mapping[str, SetProvenance] | None = None,
) -> tuple[Images | PooledImages, Fold]:
    """The images, and the fold with the images of external sets added to those it trains on.

    `known` is as in `PooledImages`.

    Raises:
        UserError: as in `open_external` and `ExternalSet`.
    """
    if not names:
        return images, fold
    sets = open_external(folder, names)
    added = [image_id for each in sets for image_id in each.ids]
    return PooledImages(images, sets, known), replace(fold, training=[*fold.training, *added])


def open_external(folder: Path | None, names: Iterable[str]) -> list[ExternalSet]:
    """The sets of these names in a folder, each a zip or a folder there.

    Raises:
        UserError: a set that is not there.
    """
    sets = []
    for name in names:
        places = [folder / f"{name}.zip", folder / name] if folder else []
        found = next((place for place in places if place.exists()), None)
        if found is None:
            raise UserError(
                f"training.external: no {name}.zip and no folder {name} in {folder}; run `make "
                f"external SETS={name}`, put the set there, name its folder with EXTERNAL=, or "
                "take it out of the config"
            )
        sets.append(ExternalSet(found))
    return sets
