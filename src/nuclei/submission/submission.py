"""Kaggle submissions (CSV): written from label maps, validated as the competition does it.

A submission is a CSV `ImageId,EncodedPixels` with one row a nucleus (see `rle`), in any order of
rows; an image without nuclei has one row with empty EncodedPixels. Of the 709 final submissions of
the competition 24 could not be parsed, so `validate` refuses what the competition would refuse.
"""

import codecs
import csv
import os
import re
import sys
from bisect import insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nuclei.arrays import Int64Array, Labels
from nuclei.errors import UserError
from nuclei.io.files import atomic_path
from nuclei.submission import rle

HEADER = ("ImageId", "EncodedPixels")
Sizes = Mapping[str, tuple[int, int]]
"""Height and width in pixels by image id."""

_NO_LINE = sys.maxsize
_FAULTS_SHOWN = 10


class SubmissionRow(NamedTuple):
    """One row of a submission and its line in the file."""

    line: int
    image_id: str
    runs: str


class Faults:
    """Counts faults and keeps the texts of the first ten by line, so a million take no memory."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[tuple[int, str]] = []

    def add(self, line: int, describe: Callable[[], str]) -> None:
        """A fault on a line (_NO_LINE: on none); `describe` is called only if the text is kept."""
        self.count += 1
        if len(self._first) < _FAULTS_SHOWN or line <= self._first[-1][0]:
            insort(self._first, (line, describe()))
            del self._first[_FAULTS_SHOWN:]

    def refuse(self, path: Path | str) -> None:
        """Raises a UserError with the first faults, if there are any."""
        if not self.count:
            return
        lines = [f"{path}: {self.count} fault{'s' if self.count > 1 else ''}"]
        lines += [text if line == _NO_LINE else f"line {line}: {text}" for line, text in self._first]
        if self.count > _FAULTS_SHOWN:
            lines.append(f"... and {self.count - _FAULTS_SHOWN} more")
        raise UserError("\n  ".join(lines))


def write_submission(path: Path | str, label_maps: Iterable[tuple[str, Labels]]) -> None:
    """Writes (image id, label map (H, W)) pairs as a submission CSV, one nucleus a row.

    Raises:
        UserError: an image id that occurs twice or would need quotes in a CSV; an array that is no
            label map.
    """
    written = set()
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as file,
    ):
        file.write(",".join(HEADER) + "\n")
        for image_id, label_map in label_maps:
            if image_id in written:
                raise UserError(f"{path}: image {image_id} occurs twice; give each image once")
            if not image_id or set(image_id) & set(',"\r\n'):
                raise UserError(f"{path}: {image_id!r} cannot be an image id; rename the image")
            written.add(image_id)
            for runs in rle.encode_label_map(label_map) or [""]:
                file.write(f"{image_id},{runs}\n")


def read_submission(path: Path | str) -> dict[str, list[str]]:
    """Runs of each nucleus by image id, in file order; an image without nuclei has an empty list.

    Raises:
        UserError: no such file, or not a complete table of the two columns; `validate` checks the
            content as well.
    """
    rows, faults = _read_submission_rows(path)
    faults.refuse(path)
    by_image: dict[str, list[str]] = {}
    for row in rows:
        runs = by_image.setdefault(row.image_id, [])
        if row.runs:
            runs.append(row.runs)
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
    """Number of nuclei of a submission that the competition would accept.

    `sizes` holds the required images. `others` are allowed too, as in a submission of all of stage
    2, of which 106 images are scored; their runs cannot be checked against the image's edge.

    Raises:
        UserError: all faults, the first ten with their lines.
    """
    rows, faults = _read_submission_rows(path)
    _check_images(rows, sizes, others, faults)
    _check_runs(_drop_repeated(rows, faults), sizes, faults)
    faults.refuse(path)
    return sum(bool(row.runs) for row in rows)


def _check_images(rows: list[SubmissionRow], sizes: Sizes, others: Collection[str], faults: Faults) -> None:
    """Adds images that are unknown or missing, and rows without runs beside others of the image."""
    of_image: dict[str, list[SubmissionRow]] = {}
    for row in rows:
        of_image.setdefault(row.image_id, []).append(row)
    for image_id, own in of_image.items():
        count = len(own)
        if image_id not in sizes and image_id not in others:
            text = f"image {image_id[:80]!r} is not one of the {len(sizes)} expected ({count} such rows); remove it"
            faults.add(own[0].line, text.__str__)
        if count > 1:
            text = (
                f"image {image_id}: nothing encoded in one of its {count} rows; only an image "
                "without nuclei has such a row, a single one"
            )
            for row in own:
                if not row.runs:
                    faults.add(row.line, text.__str__)
    for image_id in sizes:
        if image_id not in of_image:
            text = f"image {image_id}: no row; if it has no nuclei, one row with nothing encoded"
            faults.add(_NO_LINE, text.__str__)


def _drop_repeated(rows: list[SubmissionRow], faults: Faults) -> list[SubmissionRow]:
    """The rows without exact repetitions, which are added to the faults."""
    first: dict[tuple[str, str], int] = {}
    kept = []
    for row in rows:
        line = first.setdefault((row.image_id, row.runs), row.line)
        if line == row.line:
            kept.append(row)
        elif row.runs:
            faults.add(row.line, partial(_describe_repeat, row, line))
    return kept


def _describe_repeat(row: SubmissionRow, line: int) -> str:
    return f"image {row.image_id}: repeats line {line}; masks of an image may not overlap"


def _check_runs(rows: list[SubmissionRow], sizes: Sizes, faults: Faults) -> None:
    """Adds runs that are malformed, leave their image, or overlap another nucleus of the image."""
    rows, runs = _parse_runs(rows, faults)
    ends = runs.starts + runs.lengths - 1
    areas = {image_id: height * width for image_id, (height, width) in sizes.items()}
    area_of_row = np.array([areas.get(row.image_id, rle.LARGEST_IMAGE) for row in rows], np.int64)
    outside = ends > area_of_row[runs.rows]
    for number, run in zip(*np.unique(runs.rows[outside], return_index=True), strict=True):
        row, end = rows[number], ends[outside][run]
        faults.add(row.line, partial(_describe_outside, row, end, sizes))
    inside = _Runs(runs.starts[~outside], runs.lengths[~outside], runs.rows[~outside])
    _check_overlaps(rows, inside, faults)


class _Runs(NamedTuple):
    """Runs of many rows, each (R,) int64; `rows` numbers the row of each run from 0."""

    starts: Int64Array
    lengths: Int64Array
    rows: Int64Array


def _parse_runs(rows: list[SubmissionRow], faults: Faults) -> tuple[list[SubmissionRow], _Runs]:
    """The rows with well-formed runs, and these runs; other rows are added to the faults."""
    try:
        return rows, _Runs(*rle.parse_rows([row.runs for row in rows]))
    except UserError:
        good = []
        for row in rows:
            text = rle.fault(row.runs)
            if text:
                faults.add(row.line, f"image {row.image_id}: {text}".__str__)
            else:
                good.append(row)
        return good, _Runs(*rle.parse_rows([row.runs for row in good]))


def _describe_outside(row: SubmissionRow, end: int, sizes: Sizes) -> str:
    text = f"image {row.image_id}: a run ends at pixel {end}"
    if row.image_id not in sizes:
        return text
    height, width = sizes[row.image_id]
    return f"{text}, but height {height} x width {width} gives {height * width} pixels"


def _check_overlaps(rows: list[SubmissionRow], runs: _Runs, faults: Faults) -> None:
    numbers: dict[str, int] = {}
    images = [numbers.setdefault(row.image_id, len(numbers)) for row in rows]
    for earlier, later, pixel in rle.find_overlaps(runs.starts, runs.lengths, runs.rows, images):
        one, other = rows[earlier], rows[later]
        faults.add(other.line, partial(_describe_overlap, one, other, pixel))


def _describe_overlap(one: SubmissionRow, other: SubmissionRow, pixel: int) -> str:
    if one.runs.split() == other.runs.split():
        return _describe_repeat(other, one.line)
    text = f"shares pixel {pixel} with line {one.line}; masks of an image may not overlap"
    return f"image {other.image_id}: {text}"


def _read_submission_rows(path: Path | str) -> tuple[list[SubmissionRow], Faults]:
    """Rows of a submission, and the lines that are none."""
    lines = _read_lines(path)
    header = next(lines, (0, []))[1]
    if tuple(header) != HEADER:
        shown = ",".join(header)[:80]
        remedy = "; leave the other columns out (pandas: index=False)" if set(HEADER) < set(header) else ""
        raise UserError(f"{path}: expected the first line {','.join(HEADER)!r}, got {shown!r}{remedy}")
    if _has_byte_order_mark(path):
        raise UserError(f"{path}: begins with a byte order mark; save it as UTF-8 without one")
    rows: list[SubmissionRow] = []
    faults, last = Faults(), 1
    known: dict[str, str] = {}  # equal texts take memory once
    for last, fields in lines:
        if len(fields) == len(HEADER):
            image_id, runs = fields[0], fields[1].strip(" ")
            rows.append(SubmissionRow(last, known.setdefault(image_id, image_id), known.setdefault(runs, runs)))
        else:
            text = f"expected the two fields {','.join(HEADER)}, got {len(fields)}"
            faults.add(last, text.__str__)
    if not _ends_with_newline(path):
        faults.add(last, "the line does not end; the file may be cut off, write or copy it again".__str__)
    return rows, faults


def read_columns(path: Path | str, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Lines and fields by column name of a CSV that has at least `columns`.

    Raises:
        UserError: the file is missing, lacks columns or is cut off.
    """
    lines = _read_lines(path)
    header = next(lines, (0, []))[1]
    missing = [column for column in columns if column not in header]
    if missing:
        raise UserError(
            f"{path}: the columns {missing} are missing; found {[name[:40] for name in header[:20]]}"
        )
    table = []
    for line, fields in lines:
        if len(fields) != len(header):
            raise UserError(
                f"{path}, line {line}: expected {len(header)} fields, got {len(fields)}; is it cut off?"
            )
        table.append((line, dict(zip(header, fields, strict=True))))
    return table


def _read_lines(path: Path | str) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields of a CSV, its header among them, one at a time."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; give the path of a CSV")
    # One nucleus may need more than the usual 131,072 characters.
    csv.field_size_limit(sys.maxsize)
    try:
        # utf-8-sig: spreadsheets may begin the file with a byte order mark
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for fields in reader:
                yield reader.line_num, fields
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path}: no text in UTF-8 with commas ({error}); unpack it first if it is packed"
        ) from error


def _has_byte_order_mark(path: Path | str) -> bool:
    with open(path, "rb") as file:
        return file.read(3) == codecs.BOM_UTF8


def _ends_with_newline(path: Path | str) -> bool:
    with open(path, "rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def parse_size(path: Path | str, line: int, height: str, width: str) -> tuple[int, int]:
    """Height and width in pixels of two fields of a table; the path and line are for errors.

    Raises:
        UserError: a field that is no whole number from 1.
    """
    size = _parse_length(height), _parse_length(width)
    if min(size) < 1:
        raise UserError(
            f"{path}, line {line}: expected a height and a width in pixels, got {height[:40]!r} "
            f"and {width[:40]!r}"
        )
    return size


def _parse_length(text: str) -> int:
    """A whole number of pixels such as `60` or, as pandas writes it, `60.0`; 0 for other texts."""
    found = re.fullmatch(r"(\d{1,9})(\.0*)?", text.strip(), re.ASCII)
    return int(found[1]) if found else 0
