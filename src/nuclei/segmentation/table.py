"""Measurements of a label map as a table."""

from typing import Any

from nuclei.arrays import Labels, Pixels
from nuclei.io.picture import PixelSize
from nuclei.segmentation import measurements


def measure(label_map: Labels, image: Pixels, pixel_size: float | tuple[float, float] | None = None) -> Any:
    """pandas.DataFrame with a row for each nucleus of a label map (H, W) and its image (H, W) or (H, W, 3).

    The columns are those of measurements/*.csv. `pixel_size` is in micrometres, one for both axes
    or (x, y); with it there are columns in micrometres.
    """
    import pandas

    size = (pixel_size, pixel_size) if isinstance(pixel_size, int | float) else pixel_size
    known = PixelSize(*size) if size is not None else None
    nuclei = measurements.list_nuclei(label_map, image)
    rows = [measurements.measure(nucleus, known) for nucleus in nuclei]
    return pandas.DataFrame(rows) if rows else pandas.DataFrame(columns=["label", "area"])
