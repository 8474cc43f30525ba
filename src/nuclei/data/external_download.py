"""External data sets: download, check, convert, and leave out the competition's own images.

A set becomes the folder `<external>/<name>` with `images/`, `labels/` and, written last,
`provenance.json`: licence, source, citation, the files that it was made from, and what was refused.
"""

import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from pydantic import Field
from skimage.measure import label

from nuclei.arrays import Float32Array, LabelMap, Pixels
from nuclei.data import http
from nuclei.data.archive import Member, open_zip
from nuclei.data.external_sets import IMAGES, LABELS, ExternalSet
from nuclei.data.intensity import to_display
from nuclei.data.near_duplicates import find_duplicates, thumbnail
from nuclei.data.prepared_images import Images
from nuclei.data.set_provenance import PROVENANCE, FileNote, SetProvenance, unstated
from nuclei.errors import UserError
from nuclei.io.files import remove_stale_temporaries, sha256, write_json
from nuclei.io.images import read_image, write_image, write_label_map
from nuclei.io.locks import folder_lock
from nuclei.io.records import Record, validate_record
from nuclei.io.tables import read_table
from nuclei.progress import name_job, show_progress

log = logging.getLogger(__name__)

DOWNLOADS = ".downloads"
COLUMNS = (
    "set",
    "file",
    "url",
    "md5",
    "images",
    "labels",
    "components",
    "reduce",
    "licence",
    "source",
    "title",
    "citation",
)

Pair = tuple[str, Pixels, LabelMap]
"""Name, RGB image (H, W, 3) uint8 and label map (H, W) of an image."""


class SetFile(Record):
    """A file of a public set; `md5` is empty where it is not known."""

    url: str
    md5: str = ""


class PublicSet(Record):
    """A public set and how it is read.

    `images` and `labels` are regular expressions of the ends of paths in its archives; an image and
    its labels have the same name. With `components` each connected region of one value is a
    nucleus, as the set's own code reads it, else each value. Sides are divided by `reduce`.
    """

    title: str
    licence: str
    source: str
    citation: str
    files: dict[str, SetFile]
    images: str
    labels: str
    components: bool
    reduce: int = Field(ge=1)


def read_public_sets(path: Path) -> dict[str, PublicSet]:
    """The public sets of a CSV with COLUMNS, a row a file, by name.

    Raises:
        UserError: no such file, columns that are missing, or values of another kind.
    """
    remedy = "restore it from git"
    table = read_table(path, COLUMNS, remedy).fillna("")
    found = {}
    for name, rows in table.groupby("set", sort=False):
        files = {row.file: {"url": row.url, "md5": row.md5} for row in rows.itertuples()}
        values = {key: rows[key].iloc[0] for key in PublicSet.model_fields if key != "files"}
        found[str(name)] = validate_record(
            {**values, "files": files}, PublicSet, f"{path}: {str(name)[:60]}", remedy
        )
    return found


def known_sets(path: Path) -> dict[str, SetProvenance]:
    """What the table says of the public sets, by name; empty where there is no table."""
    public = read_public_sets(path) if path.is_file() else {}
    return {name: describe_set(name, each, {}) for name, each in public.items()}


def prepare_set(
    name: str, public: Mapping[str, PublicSet], folder: Path, known: Mapping[str, Float32Array]
) -> Path:
    """Makes the folder of a set below `folder` unless it exists: a public set, a folder or a zip.

    `known` are thumbnails of the competition's images, whose near-duplicates are left out.

    Raises:
        UserError: an unknown name; a download that fails or has another digest; files that are no
            set, or nothing but the competition's images.
    """
    place = folder / Path(name).stem
    with folder_lock(folder):
        remove_stale_temporaries(folder)
        if (place / PROVENANCE).is_file():
            log.info("%s: made earlier; delete the folder to make it again", place)
            return place
        if name in public:
            wanted, downloads = public[name].files, folder / DOWNLOADS / name
            files = {file: _fetch(wanted[file], downloads / file) for file in wanted}
            provenance = describe_set(name, public[name], files)
            pairs = _read_pairs(public[name], [downloads / file for file in files])
        else:
            own = _open_own(name, public)
            provenance, pairs = own.stated or _describe_own(own), _read_own(own)
        _write_set(pairs, provenance, place, known)
        shutil.rmtree(folder / DOWNLOADS / name, ignore_errors=True)
    return place


def competition_thumbnails(processed: Path) -> dict[str, Float32Array]:
    """Thumbnails of all of the competition's images, training and test, by image id."""
    images = Images(processed)
    job = name_job("external", "the competition's images")
    ids = show_progress(images.index.image_id, job, "images", len(images.index))
    return {image_id: thumbnail(images.image(image_id)) for image_id in ids}


def _fetch(file: SetFile, path: Path) -> FileNote:
    """Downloads a file unless it is there, and compares its digest with the known one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        http.fetch(file.url, path)
    found = {"md5": hashlib.md5(usedforsecurity=False), "sha256": hashlib.sha256()}
    with open(path, "rb") as content:
        while chunk := content.read(2**20):
            for digest in found.values():
                digest.update(chunk)
    if file.md5 and found["md5"].hexdigest() != file.md5:
        path.unlink()
        raise UserError(
            f"{http.public_url(file.url)}: md5 {found['md5'].hexdigest()}, expected {file.md5}; "
            "the set has changed or the download is damaged: try again, or get it from another "
            "place"
        )
    return FileNote(
        url=http.public_url(file.url), bytes=path.stat().st_size, sha256=found["sha256"].hexdigest()
    )


def describe_set(name: str, public: PublicSet, files: dict[str, FileNote]) -> SetProvenance:
    """The provenance of a public set that was made from `files`."""
    stated = public.model_dump(include={"title", "licence", "source", "citation"})
    return SetProvenance(name=name, files=files, **stated)


def _open_own(name: str, public: Mapping[str, PublicSet]) -> ExternalSet:
    path = Path(name).expanduser()
    if not path.exists():
        raise UserError(
            f"{name}: no folder or zip, and no public set; public ones are {', '.join(sorted(public))}"
        )
    return ExternalSet(path)


def _describe_own(own: ExternalSet) -> SetProvenance:
    """Provenance of a set that brings none."""
    files = {}
    if own.path.is_file():
        note = FileNote(url=own.path.name, bytes=own.path.stat().st_size, sha256=sha256(own.path))
        files[own.path.name] = note
    log.warning("%s: no licence, source and citation given; write them into its %s", own.path, PROVENANCE)
    return unstated(own.name).model_copy(update={"files": files})


def _read_own(own: ExternalSet) -> Iterator[Pair]:
    for image_id in own.ids:
        yield image_id.partition("/")[2], to_display(own.image(image_id)), own.label_map(image_id)


def _read_pairs(public: PublicSet, zips: list[Path]) -> Iterator[Pair]:
    """Images and label maps of the archives of a public set, by name.

    Raises:
        UserError: an image without labels, labels without an image, or none at all.
    """
    with ExitStack() as stack, tempfile.TemporaryDirectory() as scratch:
        members = [member for path in zips for member in stack.enter_context(open_zip(path))]
        images, labels = (_find_members(members, pattern) for pattern in (public.images, public.labels))
        odd = sorted(images.keys() ^ labels.keys())
        if odd or not images:
            raise UserError(
                f"{public.source}: {len(images)} images and {len(labels)} label maps, not in "
                f"pairs: {odd[:3]}; the set has another layout than configs/external_sets.csv says"
            )
        for name in sorted(images):
            image = to_display(_as_rgb(_decode(images[name], Path(scratch))))
            label_map = _as_labels(_decode(labels[name], Path(scratch)), public.components)
            step = public.reduce
            yield name, _shrink(image, step), label_map[step // 2 :: step, step // 2 :: step]


def _find_members(members: list[Member], pattern: str) -> dict[str, Member]:
    """Members whose path ends as the pattern says, by the name of the file without its ending."""
    wanted = re.compile(f"(?:^|.*/){pattern}$")
    own = [member for member in members if wanted.match(member.path) and "__MACOSX/" not in member.path]
    return {Path(member.path).stem: member for member in own if not Path(member.path).name.startswith(".")}


def _decode(member: Member, scratch: Path) -> Pixels:
    path = scratch / f"file{Path(member.path).suffix.lower()}"
    path.write_bytes(member.read())
    return read_image(path)


def _as_rgb(image: Pixels) -> Pixels:
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3]


def _as_labels(values: Pixels, components: bool) -> LabelMap:
    """Label map (H, W) 1..N of an annotation, the first channel of which counts."""
    flat = values if values.ndim == 2 else values[..., 0]
    if components:
        return np.asarray(label(flat, background=0, connectivity=2), np.int32)
    return np.asarray(
        np.unique(np.append(0, flat.ravel()), return_inverse=True)[1][1:].reshape(flat.shape), np.int32
    )


def _shrink(image: Pixels, step: int) -> Pixels:
    import cv2

    if step == 1:
        return image
    height, width = image.shape[:2]
    return np.asarray(cv2.resize(image, (width // step, height // step), interpolation=cv2.INTER_AREA))


def _write_set(
    pairs: Iterator[Pair], provenance: SetProvenance, place: Path, known: Mapping[str, Float32Array]
) -> None:
    """Writes a set into a temporary folder that gets its name when it is whole."""
    if place.exists():
        raise UserError(
            f"{place}: is there and was not made by `make external`; move it away, or name it as the set"
        )
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as temporary:
        made = Path(temporary) / place.name
        for kind in (IMAGES, LABELS):
            (made / kind).mkdir(parents=True)
        refused: dict[str, str] = {}
        count, nuclei = 0, 0
        for name, image, label_map in show_progress(pairs, name_job("external", place.name), "images"):
            duplicate = find_duplicates({name: thumbnail(image)}, known)
            if duplicate:
                refused |= duplicate
                continue
            write_image(made / IMAGES / f"{name}.png", image)
            write_label_map(made / LABELS / f"{name}.png", label_map)
            count, nuclei = count + 1, nuclei + int(np.unique(label_map[label_map > 0]).size)
        if not count:
            raise UserError(
                f"{place.name}: all {len(refused)} images are images of the competition; none is left"
            )
        whole = provenance.model_copy(update={"images": count, "nuclei": nuclei, "refused": refused})
        write_json(made / PROVENANCE, whole.model_dump(mode="json"))
        os.replace(made, place)
