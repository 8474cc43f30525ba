"""Submissions: written from label maps, and checked as the competition checks them.

A submission is a CSV `ImageId,EncodedPixels` with one row a nucleus (see `rle`), in any order of rows; an image
without nuclei has one row with nothing encoded. Of the 709 final submissions of the competition 24 could not be
parsed, so `validate` refuses here whatever would be refused there.
"""

import csv
import io
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nuclei.errors import UserError
from nuclei.io.files import atomic_path
from nuclei.submission import rle

HEADER = ("ImageId", "EncodedPixels")
Sizes = Mapping[str, tuple[int, int]]
"""Height and width in pixels by image id."""

Fault = tuple[int, str]
"""The line on which something is wrong (_NO_LINE: on none), and what."""

_NO_LINE = sys.maxsize
_FAULTS_SHOWN = 10


class Nucleus(NamedTuple):
    """One row of a submission and the line of the file on which it stands."""

    line: int
    image_id: str
    runs: str


def write_submission(path: Path | str, label_maps: Iterable[tuple[str, npt.NDArray[np.integer[Any]]]]) -> None:
    """Writes the submission of (image id, label map) pairs, images as they come and nuclei in the order of labels.

    Raises:
        UserError: an image id that comes twice or cannot stand in a CSV unquoted; an array that is no label map.
    """
    written = set()
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(",".join(HEADER) + "\n")
        for image_id, label_map in label_maps:
            if image_id in written:
                raise UserError(f"{path}: image {image_id} comes twice; give each image once")
            if not image_id or set(image_id) & set(',"\r\n'):
                raise UserError(f"{path}: {image_id!r} cannot be an image id; rename the image")
            written.add(image_id)
            for runs in rle.encode_label_map(label_map) or [""]:
                file.write(f"{image_id},{runs}\n")


def read_submission(path: Path | str) -> dict[str, list[str]]:
    """Runs of each nucleus by image id, in the order of the file; an image without nuclei has an empty list.

    Raises:
        UserError: no such file, or no whole table of the two columns; `validate` checks the content as well.
    """
    nuclei, faults = _read_nuclei(path)
    _refuse(path, faults)
    by_image: dict[str, list[str]] = {}
    for nucleus in nuclei:
        runs = by_image.setdefault(nucleus.image_id, [])
        if nucleus.runs:
            runs.append(nucleus.runs)
    return by_image


def read_sizes(index: Path | str, subset: str = "test") -> dict[str, tuple[int, int]]:
    """Sizes of the images of a subset (train or test) of the prepared index.

    Raises:
        UserError: the file is missing or lacks columns, or has no such subset.
    """
    table = read_columns(index, ("image_id", "subset", "height", "width"))
    rows = [(line, row) for line, row in table if row["subset"] == subset]
    if not rows:
        raise UserError(f"{index}: no image of subset {subset!r}; run `make data`")
    return {row["image_id"]: parse_size(index, line, row["height"], row["width"]) for line, row in rows}


def validate(path: Path | str, sizes: Sizes, *, others: Collection[str] = ()) -> int:
    """Number of nuclei of a submission that the competition would take.

    `sizes` holds the images that must be there. `others` may be there too, as in a submission of all of stage 2, of
    which 106 images are scored; their runs cannot be checked against an edge.

    Raises:
        UserError: all faults, the first ten of them with their lines.
    """
    nuclei, faults = _read_nuclei(path)
    rows_of_image: dict[str, list[Nucleus]] = {}
    for nucleus in nuclei:
        rows_of_image.setdefault(nucleus.image_id, []).append(nucleus)
    for image_id, rows in rows_of_image.items():
        if image_id not in sizes and image_id not in others:
            text = f"image {image_id[:80]!r} is not one of the {len(sizes)} expected ({len(rows)} such rows); remove it"
            faults.append((rows[0].line, text))
        if len(rows) > 1:
            text = f"image {image_id}: nothing encoded in one of its {len(rows)} rows; only an image without nuclei has"
            faults += [(row.line, f"{text} such a row, a single one") for row in rows if not row.runs]
    for image_id in sizes:
        if image_id not in rows_of_image:
            faults.append((_NO_LINE, f"image {image_id}: no row; if it has no nuclei, one row with nothing encoded"))
    _refuse(path, faults + _run_faults(nuclei, sizes))
    return sum(bool(nucleus.runs) for nucleus in nuclei)


def _refuse(path: Path | str, faults: list[Fault]) -> None:
    """Raises a UserError that lists the first faults, if there are any."""
    if not faults:
        return
    lines = [f"{path}: {len(faults)} fault{'s' if len(faults) > 1 else ''}"]
    lines += [text if line == _NO_LINE else f"line {line}: {text}" for line, text in sorted(faults)[:_FAULTS_SHOWN]]
    if len(faults) > _FAULTS_SHOWN:
        lines.append(f"... and {len(faults) - _FAULTS_SHOWN} more")
    raise UserError("\n  ".join(lines))


def _run_faults(nuclei: list[Nucleus], sizes: Sizes) -> list[Fault]:
    """Runs that are faulty in themselves, leave their image, or lie on those of another nucleus of the image."""
    faults: list[Fault] = []
    try:
        starts, lengths, rows = rle.parse_rows([nucleus.runs for nucleus in nuclei])
    except ValueError:
        texts = [rle.fault(nucleus.runs) for nucleus in nuclei]
        faults += [(n.line, f"image {n.image_id}: {text}") for n, text in zip(nuclei, texts, strict=True) if text]
        nuclei = [nucleus for nucleus, text in zip(nuclei, texts, strict=True) if not text]
        starts, lengths, rows = rle.parse_rows([nucleus.runs for nucleus in nuclei])
    ends = starts + lengths - 1
    room = {image_id: height * width for image_id, (height, width) in sizes.items()}
    outside = ends > np.array([room.get(nucleus.image_id, rle.LARGEST_IMAGE) for nucleus in nuclei], np.int64)[rows]
    for row, run in zip(*np.unique(rows[outside], return_index=True), strict=True):
        image_id, end = nuclei[row].image_id, ends[outside][run]
        height, width = sizes.get(image_id, (0, 0))
        text = f"a run ends at pixel {end}, but height {height} x width {width} gives {height * width} pixels"
        faults.append((nuclei[row].line, f"image {image_id}: {text if image_id in sizes else text.partition(',')[0]}"))
    numbers: dict[str, int] = {}
    images = [numbers.setdefault(nucleus.image_id, len(numbers)) for nucleus in nuclei]
    for earlier, later, pixel in rle.find_overlaps(starts[~outside], lengths[~outside], rows[~outside], images):
        first, second = nuclei[earlier], nuclei[later]
        what = "repeats" if first.runs.split() == second.runs.split() else f"shares pixel {pixel} with"
        text = f"image {second.image_id}: {what} line {first.line}; masks of an image may not overlap"
        faults.append((second.line, text))
    return faults


def _read_nuclei(path: Path | str) -> tuple[list[Nucleus], list[Fault]]:
    """Rows of a submission, and the lines that are none."""
    rows, is_whole = _read_rows(path)
    if not rows or tuple(rows[0][1]) != HEADER:
        header = ",".join(rows[0][1])[:80] if rows else ""
        raise UserError(f"{path}: expected the first line {','.join(HEADER)!r}, got {header!r}")
    nuclei: list[Nucleus] = []
    faults: list[Fault] = []
    for line, fields in rows[1:]:
        if len(fields) == len(HEADER):
            nuclei.append(Nucleus(line, fields[0], fields[1].strip(" ")))
        else:
            faults.append((line, f"expected the two fields {','.join(HEADER)}, got {len(fields)}"))
    if not is_whole:
        faults.append((rows[-1][0], "the line does not end; the file may be cut off, write or copy it again"))
    return nuclei, faults


def read_columns(path: Path | str, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Lines and fields by column name of a CSV that has at least `columns`."""
    rows, _ = _read_rows(path)
    header = rows[0][1] if rows else []
    missing = [column for column in columns if column not in header]
    if missing:
        raise UserError(f"{path}: the columns {missing} are missing; found {header[:20]}")
    for line, fields in rows[1:]:
        if len(fields) != len(header):
            raise UserError(f"{path}, line {line}: expected {len(header)} fields, got {len(fields)}; is it cut off?")
    return [(line, dict(zip(header, fields, strict=True))) for line, fields in rows[1:]]


def _read_rows(path: Path | str) -> tuple[list[tuple[int, list[str]]], bool]:
    """Lines and fields of a CSV, its header among them, and whether its last line ends."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; give the path of a CSV")
    try:
        text = Path(path).read_bytes().decode("utf-8")
        csv.field_size_limit(sys.maxsize)  # one nucleus may well need more than the usual 131,072 characters
        reader = csv.reader(io.StringIO(text, newline=""))
        rows = [(reader.line_num, fields) for fields in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: no text in UTF-8 with commas ({error}); unpack it first if it is packed") from error
    return rows, text.endswith("\n")


def parse_size(path: Path | str, line: int, height: str, width: str) -> tuple[int, int]:
    try:
        size = int(height), int(width)
    except ValueError:
        size = 0, 0
    if min(size) < 1:
        raise UserError(f"{path}, line {line}: expected a height and a width in pixels, got {height!r} and {width!r}")
    return size
