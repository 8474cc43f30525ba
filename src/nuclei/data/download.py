"""The first stage: `<raw>/stage1_train`, `<raw>/stage1_test` and, last, `<raw>/manifest.csv` from a source.

Everything is fetched, checked and unpacked in `<raw>/.incoming` and put in place when it is complete; until then what
was there before stays as it was.
"""

import csv
import io
import logging
import os
import shutil
from pathlib import Path

from nuclei.data import archive
from nuclei.data.archive import SUBSETS
from nuclei.data.sources import KNOWN_COUNTS, SOLUTION, Origin, find_origins
from nuclei.errors import DamagedArchiveError, UserError
from nuclei.io.files import remove_stale_temporaries, sha256, write_text

log = logging.getLogger(__name__)

SOLUTION_START = b"ImageId,EncodedPixels"
KEPT_FILES = (*(f"{subset}.zip" for subset in SUBSETS), SOLUTION)
MANIFEST = "manifest.csv"
COLUMNS = ("file", "bytes", "sha256", "source")
Row = tuple[str, int, str, str]


def download(source: str, raw: Path) -> Path:
    """Path of the manifest (CSV: file, bytes, sha256, source) written last, when both folders are whole.

    `source` is `bbbc`, `kaggle`, `fixes`, a folder or an http(s) address that holds `stage1_train.zip` and
    `stage1_test.zip` (a folder may hold them unpacked). The digest of a folder is that of `archive.Tree`.

    Raises:
        UserError: the source is unknown, incomplete, refused, damaged or not the competition's data.
    """
    origins = find_origins(source)
    incoming = raw / ".incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    _recover(raw, incoming, "\n".join(origin.label for origin in origins.values()))
    kept = _read_kept(raw)
    try:
        rows: list[Row] = []
        trees = []
        for subset in SUBSETS:
            tree, subset_rows = _stage(subset, origins[subset], raw, incoming, kept)
            trees.append(tree)
            rows += subset_rows
        _check_counts(source, *trees)
        if SOLUTION in origins:
            rows += _stage_solution(origins[SOLUTION], incoming)
    except BaseException:
        _discard_trees(incoming)
        raise
    sources = {row[0]: row[3] for row in rows}
    own = {origin.place.resolve() for origin in origins.values() if origin.place}
    stale = [name for name in kept if kept[name] != sources.get(name) and (raw / name).resolve() not in own]
    manifest = _commit(raw, incoming, sorted(rows), stale)
    train, test = trees
    found = f"{len(train.image_ids)} training images with {train.masks} nuclei, {len(test.image_ids)} test images"
    log.info("%s: %s from %s", raw, found, source)
    return manifest


def _recover(raw: Path, incoming: Path, wanted: str) -> None:
    """Clears what an earlier run left, but for downloads from the same source; undoes a replacement cut off."""
    previous = incoming / "previous"
    if previous.is_dir() and not (raw / MANIFEST).exists():
        for path in sorted(previous.iterdir(), key=lambda path: path.name == MANIFEST):  # the manifest comes last
            if (raw / path.name).exists():
                _remove(incoming / "undone")
                os.replace(raw / path.name, incoming / "undone")
            os.replace(path, raw / path.name)
    note = incoming / "source.txt"
    if not note.exists() or note.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(incoming)
        write_text(note, wanted)
    for folder in (path for path in incoming.iterdir() if path.is_dir()):
        shutil.rmtree(folder)
    remove_stale_temporaries(incoming)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _discard_trees(incoming: Path) -> None:
    for subset in SUBSETS:
        shutil.rmtree(incoming / subset, ignore_errors=True)
    if [path.name for path in incoming.iterdir()] == ["source.txt"]:
        shutil.rmtree(incoming)


def _stage(
    subset: str, origin: Origin, raw: Path, incoming: Path, kept: dict[str, str]
) -> tuple[archive.Tree, list[Row]]:
    """Unpacks a subset into `incoming`; also its row in the manifest and that of the zip file that it came in."""
    name = f"{subset}.zip"
    place = origin.place
    if place is None and kept.get(name) == origin.label:
        place = raw / name
        log.info("%s: came from %s before and is unchanged; delete it to fetch it anew", place, origin.label)
    if place is not None:
        tree = archive.unpack(place, subset, incoming / subset)
    else:
        place = incoming / name
        tree = _fetch_and_unpack(subset, origin, place, incoming / subset)
    rows: list[Row] = [(subset, tree.size, tree.sha256, origin.label)]
    if place.is_file():
        rows.append((name, place.stat().st_size, sha256(place), origin.label))
    return tree, rows


def _fetch_and_unpack(subset: str, origin: Origin, place: Path, folder: Path) -> archive.Tree:
    """Unpacks what is fetched to `place`, once more where it is damaged; a damaged file does not stay."""
    assert origin.fetch is not None
    attempts = 2
    while True:
        attempts -= 1
        try:
            if not place.exists():
                origin.fetch(place)
            return archive.unpack(place, subset, folder)
        except DamagedArchiveError as error:
            shutil.rmtree(folder, ignore_errors=True)
            place.unlink(missing_ok=True)
            if not attempts:
                raise
            log.warning("%s; fetching it once more", error)


def _read_kept(raw: Path) -> dict[str, str]:
    """Name and source of the files that an earlier run kept here and that are still what it wrote."""
    if not (raw / MANIFEST).is_file():
        return {}
    with open(raw / MANIFEST, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [row for row in rows if row.get("file") in KEPT_FILES and (raw / row["file"]).is_file()]
    return {row["file"]: row["source"] for row in kept if row["sha256"] == sha256(raw / row["file"])}


def _stage_solution(origin: Origin, incoming: Path) -> list[Row]:
    """The manifest's row of the published solution of stage1_test, which is worth having but not needed."""
    place = incoming / SOLUTION
    try:
        if origin.fetch is not None:
            origin.fetch(place)
        elif origin.place is not None:
            shutil.copyfile(origin.place, place)
        with open(place, "rb") as file:
            start = file.read(len(SOLUTION_START))
        if start != SOLUTION_START:
            raise UserError(f"{origin.label}: {SOLUTION} starts with {start!r}, expected {SOLUTION_START!r}")
    except ValueError as error:
        place.unlink(missing_ok=True)
        log.warning("left out, as nothing but a local score of the test images needs it: %s", error)
        return []
    return [(SOLUTION, place.stat().st_size, sha256(place), origin.label)]


def _check_counts(source: str, train: archive.Tree, test: archive.Tree) -> None:
    both = sorted(set(train.image_ids) & set(test.image_ids))
    if both:
        raise UserError(
            f"--source {source}: {len(both)} images are both in stage1_train and in stage1_test, the first "
            f"{both[0]}; a score on them would mean nothing. Is one archive there under both names?"
        )
    counts = (len(train.image_ids), len(test.image_ids))
    if counts != KNOWN_COUNTS.get(source, counts):
        log.warning(
            "--source %s: %d training and %d test images came, %d and %d were known; the source has changed",
            source,
            *counts,
            *KNOWN_COUNTS[source],
        )


def _commit(raw: Path, incoming: Path, rows: list[Row], stale: list[str]) -> Path:
    """Puts everything in place by renaming; `stale` are files of an earlier source, which go."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_text(incoming / "new" / MANIFEST, text.getvalue())
    previous = incoming / "previous"
    previous.mkdir()
    # The manifest goes first and comes last: without it nothing says that the data are whole.
    for name in (MANIFEST, *SUBSETS, *KEPT_FILES):
        arrived = (incoming / name).exists()
        if (raw / name).exists() and (arrived or name == MANIFEST or name in stale):
            os.replace(raw / name, previous / name)
        if arrived:
            os.replace(incoming / name, raw / name)
    os.replace(incoming / "new" / MANIFEST, raw / MANIFEST)
    shutil.rmtree(incoming)
    return raw / MANIFEST
