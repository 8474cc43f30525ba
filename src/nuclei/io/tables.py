"""CSV tables that stages exchange; columns are checked and found by name."""

from pathlib import Path
from typing import Any

from nuclei.errors import UserError

INDEX_COLUMNS = (
    "image_id",
    "subset",
    "image",
    "label",
    "height",
    "width",
    "nuclei",
    "modality",
    "group",
)
SOURCE = "source"
"""Column of the index that names the series an image comes from, see `data.image_sources`."""
SPLIT_COLUMNS = ("image_id", "fold", "group", "modality", "nuclei")
MASK_CONFLICT_COLUMNS = ("image_id", "contested_pixels", "left_out")
"""Columns of settled.csv: per training image, conflicts between its masks and how they were
settled."""


def read_table(path: Path | str, columns: tuple[str, ...], remedy: str) -> Any:
    """pandas.DataFrame of a CSV that must have `columns`; others, such as an index, may be there too.

    A byte order mark is accepted. Image ids and groups are text, even `007` and `nan`.

    Raises:
        UserError: the file is missing, cannot be read or lacks columns.
    """
    import pandas

    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; {remedy}")
    texts = {"image_id": str, "group": str}
    try:
        frame = pandas.read_csv(path, dtype=texts, encoding="utf-8-sig", keep_default_na=False, na_values=[""])
    except ValueError as error:  # errors of the parser and of the encoding
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: not a readable CSV in UTF-8 ({reason}); {remedy}") from error
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        found = [str(name)[:40] for name in frame.columns[:20]]
        raise UserError(f"{path}: columns {missing} are missing (found {found}); {remedy}")
    return frame


def read_splits(path: Path | str) -> Any:
    """pandas.DataFrame of data/splits.csv with SPLIT_COLUMNS."""
    return read_table(path, SPLIT_COLUMNS, "run `make splits`")
