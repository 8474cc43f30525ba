"""Measurements of a label map, or of a folder of results, as a table."""

from pathlib import Path
from typing import Any

from nuclei.arrays import Labels, Pixels
from nuclei.errors import UserError
from nuclei.io.picture import PixelSize
from nuclei.segmentation import measurements
from nuclei.segmentation.results import read_records


def measure(label_map: Labels, image: Pixels, pixel_size: float | tuple[float, float] | None = None) -> Any:
    """pandas.DataFrame with a row for each nucleus of a label map (H, W) and its image (H, W) or (H, W, 3).

    The columns are those of measurements/*.csv. `pixel_size` is in micrometres, one for both axes
    or (x, y); with it there are columns in micrometres.
    """
    import pandas

    size = (pixel_size, pixel_size) if isinstance(pixel_size, int | float) else pixel_size
    known = PixelSize(*size) if size is not None else None
    batches = measurements.list_batches(label_map, image)
    rows = [row for batch in batches for row in measurements.measure(batch, known)]
    return pandas.DataFrame(rows) if rows else pandas.DataFrame(columns=["label", "area"])


def read_measurements(out: Path | str) -> Any:
    """pandas.DataFrame of all nuclei in a folder of results.

    The columns are `image`, `file` and those of measurements/*.csv. A column that a plane lacks,
    such as micrometres without a pixel size, is NaN there.

    Raises:
        UserError: no results there.
    """
    import pandas

    rows = [row for record in read_records(Path(out)).values() for row in record.rows]
    if not rows:
        raise UserError(f"{out}: no results of `segment` there")
    tables = []
    for row in rows:
        table = pandas.read_csv(Path(out) / "measurements" / f"{row.image}.csv")
        table.insert(0, "image", row.image)
        table.insert(1, "file", row.file)
        tables.append(table)
    filled = [table for table in tables if len(table)]
    return pandas.concat(filled or tables[:1], ignore_index=True)
