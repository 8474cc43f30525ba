"""The stage `download`: `<raw>/stage1_train`, `<raw>/stage1_test` and, last, `<raw>/manifest.csv`.

Of the final set, stage 2, it is `<raw>/stage2_test_final` instead of the two.

Files are downloaded, checked and unpacked in `<raw>/.incoming` and moved into place when all are
complete; until then the earlier files stay as they were.
"""

import csv
import io
import logging
import os
import shutil
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from nuclei.data import archive
from nuclei.data.download_sources import STAGES, Origin, Stage, find_origins
from nuclei.errors import DamagedArchiveError, UserError
from nuclei.io.files import remove_stale_temporaries, sha256, write_text
from nuclei.io.locks import folder_lock

log = logging.getLogger(__name__)

SOLUTION_START = b"ImageId,EncodedPixels"
MANIFEST = "manifest.csv"
INCOMING = ".incoming"
COLUMNS = ("file", "bytes", "sha256", "source")
Row = tuple[str, int, str, str]


def download(source: str, raw: Path, stage: str = "stage1") -> Path:
    """Path of the manifest (CSV: file, bytes, sha256, source), written last, when all is complete.

    `stage` is a name of `download_sources.STAGES`. `source` is `bbbc`, `kaggle`, `fixes`, a folder
    or an http(s) address that holds the zips of the stage (a folder may hold them unpacked). A
    folder's digest is that of `archive.Tree`.

    Raises: UserError: the source is unknown, incomplete, refused, damaged or not the competition's
        data.
    """
    wanted = STAGES[stage]
    origins = find_origins(source, wanted)
    with folder_lock(raw):
        rows, trees, stale = _stage_all(source, origins, wanted, raw)
        manifest = _commit(raw, raw / INCOMING, sorted(rows), stale, wanted)
    found = ", ".join(_describe(subset, tree) for subset, tree in trees.items())
    log.info("%s: %s from %s", raw, found, source)
    return manifest


def _describe(subset: str, tree: archive.Tree) -> str:
    images = len(tree.image_ids)
    if subset == "stage1_train":
        return f"{images} training images with {tree.masks} nuclei"
    return f"{images} test images"


def _kept_files(stage: Stage) -> tuple[str, ...]:
    return (*(f"{subset}.zip" for subset in stage.subsets), stage.solution)


def _stage_all(
    source: str, origins: dict[str, Origin], stage: Stage, raw: Path
) -> tuple[list[Row], dict[str, archive.Tree], list[str]]:
    """Brings everything into `<raw>/.incoming`.

    Returns the rows of the manifest, the trees, and the names of files of an earlier source.
    """
    incoming = raw / INCOMING
    incoming.mkdir(exist_ok=True)
    _recover(raw, incoming, "\n".join(origin.label for origin in origins.values()))
    kept = _read_kept(raw, _kept_files(stage))
    trees: dict[str, archive.Tree] = {}
    rows: list[Row] = []
    try:
        for subset in stage.subsets:
            trees[subset], own_rows = _stage(subset, origins[subset], raw, incoming, kept)
            rows += own_rows
        _check_counts(source, stage, trees)
        if stage.solution in origins:
            rows += _stage_solution(origins[stage.solution], incoming / stage.solution)
    except BaseException:
        _discard_trees(incoming, stage)
        raise
    sources = {row[0]: row[3] for row in rows}
    own = {origin.place.resolve() for origin in origins.values() if origin.place}
    stale = [name for name in kept if kept[name] != sources.get(name) and (raw / name).resolve() not in own]
    return rows, trees, stale


def _recover(raw: Path, incoming: Path, wanted: str) -> None:
    """Undoes an interrupted replacement; removes what another source left in `incoming`."""
    previous = incoming / "previous"
    if previous.is_dir() and not (raw / MANIFEST).exists():
        # the manifest comes last: it says that the data are complete
        for path in sorted(previous.iterdir(), key=lambda path: path.name == MANIFEST):
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


def _discard_trees(incoming: Path, stage: Stage) -> None:
    for subset in stage.subsets:
        shutil.rmtree(incoming / subset, ignore_errors=True)
    if [path.name for path in incoming.iterdir()] == ["source.txt"]:
        shutil.rmtree(incoming)


def _stage(
    subset: str, origin: Origin, raw: Path, incoming: Path, kept: dict[str, str]
) -> tuple[archive.Tree, list[Row]]:
    """Unpacks a subset into `incoming`; also its row in the manifest and that of its zip file."""
    name = f"{subset}.zip"
    place = origin.place
    if place is None and kept.get(name) == origin.label:
        place = raw / name
        log.info(
            "%s: downloaded earlier from %s and unchanged; delete it to download it again",
            place,
            origin.label,
        )
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
    """Downloads and unpacks a zip to `place`, in two attempts; keeps no damaged or refused one."""
    assert origin.fetch is not None
    for attempts_left in (1, 0):
        try:
            if not place.exists():
                origin.fetch(place)
            return _unpack_or_set_aside(place, subset, folder)
        except DamagedArchiveError as error:
            shutil.rmtree(folder, ignore_errors=True)
            place.unlink(missing_ok=True)
            if not attempts_left:
                raise
            log.warning("%s; downloading it once more", error)
    raise AssertionError("unreachable")


def _unpack_or_set_aside(place: Path, subset: str, folder: Path) -> archive.Tree:
    """Unpacks a downloaded zip; one that is refused as unsafe gets a name that says so."""
    try:
        return archive.unpack(place, subset, folder)
    except DamagedArchiveError:
        raise
    except UserError as error:
        refused = place.parents[1] / f"{place.name}.refused-as-unsafe"
        os.replace(place, refused)
        raise UserError(f"{error}. The file is now {refused}") from error


def _read_kept(raw: Path, names: Collection[str]) -> dict[str, str]:
    """Name and source of an earlier run's unchanged files; none if the manifest is damaged."""
    path = raw / MANIFEST
    if not path.is_file():
        return {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        kept = [row for row in rows if row["file"] in names and (raw / row["file"]).is_file()]
        return {row["file"]: row["source"] for row in kept if row["sha256"] == sha256(raw / row["file"])}
    except (UnicodeDecodeError, KeyError, csv.Error) as error:
        log.warning("%s: damaged (%s); no file that it names is used again", path, error)
        return {}


def _stage_solution(origin: Origin, place: Path) -> list[Row]:
    """Row of the manifest for the solution of the test images at `place`, which is optional."""
    try:
        if origin.fetch is not None:
            origin.fetch(place)
        elif origin.place is not None:
            shutil.copyfile(origin.place, place)
        with open(place, "rb") as file:
            start = file.read(len(SOLUTION_START))
        if start != SOLUTION_START:
            raise UserError(f"{origin.label}: {place.name} starts with {start!r}, expected {SOLUTION_START!r}")
    except UserError as error:
        place.unlink(missing_ok=True)
        log.warning("left out; only a local score of the test images needs it: %s", error)
        return []
    return [(place.name, place.stat().st_size, sha256(place), origin.label)]


def _check_counts(source: str, stage: Stage, trees: Mapping[str, archive.Tree]) -> None:
    in_several = Counter(image_id for tree in trees.values() for image_id in tree.image_ids)
    both = sorted(image_id for image_id, count in in_several.items() if count > 1)
    if both:
        raise UserError(
            f"--source {source}: {len(both)} images are both in stage1_train and in stage1_test, "
            f"the first {both[0]}; a score on them would be worthless. Is one archive there under "
            "both names?"
        )
    counts = tuple(len(tree.image_ids) for tree in trees.values())
    expected = stage.known_counts.get(source, counts)
    if counts != expected:
        kinds = ["training" if subset == "stage1_train" else "test" for subset in trees]
        log.warning(
            "--source %s: %s images, expected %s; the source has changed",
            source,
            " and ".join(f"{count} {kind}" for count, kind in zip(counts, kinds, strict=True)),
            " and ".join(map(str, expected)),
        )


def _commit(raw: Path, incoming: Path, rows: list[Row], stale: list[str], stage: Stage) -> Path:
    """Moves everything into place by renaming; removes `stale`, files of an earlier source."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_text(incoming / "new" / MANIFEST, text.getvalue())
    previous = incoming / "previous"
    previous.mkdir()
    # The manifest is removed first and comes last: it says that the data are complete.
    for name in (MANIFEST, *stage.subsets, *_kept_files(stage)):
        arrived = (incoming / name).exists()
        if (raw / name).exists() and (arrived or name == MANIFEST or name in stale):
            os.replace(raw / name, previous / name)
        if arrived:
            os.replace(incoming / name, raw / name)
    os.replace(incoming / "new" / MANIFEST, raw / MANIFEST)
    shutil.rmtree(incoming)
    return raw / MANIFEST
