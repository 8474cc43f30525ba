"""The folder of results: who made what in it, what a new run replaces, its summary, and what killed runs left."""

import csv
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from nuclei.errors import UserError
from nuclei.io.files import atomic_path, write_json
from nuclei.io.picture import printable

FOLDERS = ("labels", "geojson", "rois", "measurements", "overlays", "page", "records")
_VERSION = 2
_SCRATCH = ".scratch-"
_FORMULA = re.compile(r"[=+\-@\t\r]")

Status = Literal["done", "earlier", "failed", "left aside"]


class SummaryRow(BaseModel):
    """A plane with its nuclei, or a file without any and why; sizes of pixels are micrometres, X first.

    `left_out` are objects that are no nuclei by their size or shape.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = ""
    file: str
    plane: str = ""
    height: int | None = None
    width: int | None = None
    nuclei: int | None = None
    left_out: int | None = None
    pixel_size_um: float | None = None
    pixel_size_y_um: float | None = None
    status: Status = "done"
    notes: str = ""


class Source(BaseModel):
    """What results were made from; the same source and settings give the same results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    sha256: str
    weights: str
    channel: int | str | None
    pixel_size: float | None
    scale: float
    min_area: str = ""
    max_area: str = ""
    keep_fibres: bool = True
    mode: str = "best"
    """Absent in records of before there were two ways."""


class Record(BaseModel):
    """What a run made of one file: rows of the summary, and paths under the folder of results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = _VERSION
    folder: str
    source: Source
    rows: list[SummaryRow]
    made: list[str]
    complete: bool = True


def read_records(out: Path) -> dict[str, Record]:
    """The records of all that lies in a folder of results, by the name of the file's results."""
    found = {}
    for path in sorted((out / "records").glob("*.json")):
        try:
            found[path.stem] = Record.model_validate_json(path.read_bytes())
        except (ValidationError, OSError):
            continue  # of another version of this program: its files are made again
    return found


def is_done(record: Record | None, source: Source, out: Path) -> bool:
    """Whether a file's results are there, made from the same source by the same settings."""
    if record is None or not record.complete or record.source != source:
        return False
    return all((out / path).is_file() for path in record.made)


def write_record(out: Path, name: str, record: Record, before: Record | None) -> None:
    """Writes a record and removes what the one before names and this one does not: results of pages that are gone."""
    write_json(out / "records" / f"{name}.json", record.model_dump(mode="json"))
    for path in set(before.made if before else ()) - set(record.made):
        (out / path).unlink(missing_ok=True)


def describe_replaced(records: dict[str, Record], sources: dict[str, Source], folder: Path) -> list[str]:
    """What of earlier results another file of the same name replaces, and what stays beside the new ones."""
    here = printable(folder.resolve())
    said = []
    other = {name: record for name, record in records.items() if name not in sources}
    replaced = [
        f"{name} (of {record.folder})"
        for name, record in records.items()
        if name in sources and record.folder != here and record.source.sha256 != sources[name].sha256
    ]
    if replaced:
        said.append(f"replaces the results of {_shorten(replaced)}: another picture of the same name")
    if other:
        places = sorted({record.folder for record in other.values()})
        said.append(f"keeps earlier results of {_shorten(list(other))} (from {_shorten(places)})")
    return said


def find_unknown(out: Path, records: dict[str, Record]) -> list[str]:
    """Files among the results that no record names, as a run that was stopped leaves them."""
    named = {path for record in records.values() for path in record.made}
    present = (path for folder in FOLDERS[:-1] for path in (out / folder).glob("*") if path.name[0] != ".")
    return sorted(path for path in (file.relative_to(out).as_posix() for file in present) if path not in named)


def earlier_rows(records: dict[str, Record], sources: Iterable[str]) -> list[SummaryRow]:
    """Rows of results that are in the folder and not of this run's files."""
    rows = []
    for name, record in records.items():
        if name not in set(sources):
            note = f"of an earlier run on {record.folder}"
            for row in record.rows:
                notes = "; ".join(part for part in (note, row.notes) if part)
                rows.append(row.model_copy(update={"status": "earlier", "notes": notes}))
    return rows


def write_summary(path: Path, rows: Iterable[SummaryRow]) -> None:
    """Writes summary.csv: numbers in six digits, no text that a spreadsheet takes for a formula."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SummaryRow.model_fields)
        writer.writerows([_write_cell(value) for value in row.model_dump().values()] for row in rows)


def _write_cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) else value
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@contextmanager
def open_scratch(out: Path) -> Iterator[Path]:
    """A folder for large arrays in `out`, removed at the end; what killed runs left there is removed first.

    Raises:
        UserError: a run that is alive uses the folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f"{_SCRATCH}*"):
        process = _owner(left)
        if process is not None and _is_alive(process):
            raise UserError(
                f"{printable(out)}: process {process} is writing there; wait for it, or give another OUT="
            )
        if process is not None:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=f"{_SCRATCH}{socket.gethostname()}-{os.getpid()}-", dir=out
    ) as scratch:
        yield Path(scratch)


def _owner(scratch: Path) -> int | None:
    """The process on this machine that made a scratch folder; 0 where that was before names told it."""
    host, _, rest = scratch.name.removeprefix(_SCRATCH).rpartition("-")[0].rpartition("-")
    if not host:
        return 0
    return int(rest) if host == socket.gethostname() and rest.isdecimal() else None


def _is_alive(process: int) -> bool:
    if process in (0, os.getpid()) or os.name == "nt":
        return False  # on Windows a folder in use cannot be removed, and to ask would end the process
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _shorten(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
