"""CSV tables that stages exchange, with their columns checked."""

from pathlib import Path
from typing import Any

from nuclei.errors import UserError

INDEX_COLUMNS = ("image_id", "subset", "image", "label", "height", "width", "nuclei", "modality", "group")


SOURCE = "source"
"""Column of the index that names the series an image comes from, see `data.image_sources`."""
SPLIT_COLUMNS = ("image_id", "fold", "group", "modality", "nuclei")


SETTLED_COLUMNS = ("image_id", "contested_pixels", "left_out")


def read_table(path: Path | str, columns: tuple[str, ...], remedy: str) -> Any:
    """pandas.DataFrame of a CSV that must have `columns`.

    Raises:
        UserError: the file is missing, or lacks columns.
    """
    import pandas

    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; {remedy}")
    frame = pandas.read_csv(path, dtype={"image_id": str, "group": str})
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise UserError(f"{path}: columns {missing} are missing (found {list(frame.columns)}); {remedy}")
    return frame


def read_splits(path: Path | str) -> Any:
    """pandas.DataFrame of data/splits.csv: image_id, fold, group, modality, nuclei."""
    return read_table(path, SPLIT_COLUMNS, "run `make splits`")
