"""What the results page shows of a plane: a smaller picture, and the outline and figures of each nucleus."""

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from nuclei.data.intensity import Limits, apply_limits
from nuclei.io.picture import Picture
from nuclei.reporting.overlays import embed_image, shrink

SIDE = 2048
"""Longer side of the picture on the page at most."""
MOST = 20_000
"""Nuclei of a plane on the page at most; of more the first are shown, without corrections."""
_THUMBNAIL = 320
_QUALITY = 88
"""Of JPEG, which is written ten times as fast as WebP."""


class Shape(BaseModel):
    """A nucleus: `rings` are corners x, y, x, y.. along the edges of pixels, outer ones and holes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: int
    area: int
    intensity: float
    x: float
    y: float
    rings: list[list[int]]


class Preview(BaseModel):
    """A plane as the page shows it; `picture` and `thumbnail` are data URIs, pixel sizes micrometres."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    height: int
    width: int
    pixel_size: tuple[float, float] | None
    picture: str
    thumbnail: str
    nuclei: list[Shape]
    count: int
    """Nuclei of the plane, all of them."""


def make_shape(row: dict[str, float], polygons: list[list[Any]]) -> Shape:
    """The shape of a nucleus by its measurements and polygons; of colours the mean intensity of all three."""
    means = [value for name, value in row.items() if name.startswith("intensity_mean")]
    return Shape(
        label=int(row["label"]),
        area=int(row["area"]),
        intensity=float(f"{sum(means) / len(means):.5g}"),
        x=round(row["centroid_x"], 1),
        y=round(row["centroid_y"], 1),
        rings=[ring.ravel().tolist() for polygon in polygons for ring in polygon],
    )


def make_preview(picture: Picture, nuclei: list[Shape], count: int, limits: Limits | None) -> Preview:
    """The page's data of a plane, its pixels shown between the limits."""
    height, width = picture.pixels.shape[:2]
    step = max(1, -(-max(height, width) // (2 * SIDE)))
    shown = shrink(apply_limits(np.ascontiguousarray(picture.pixels[::step, ::step]), limits), SIDE)
    size = picture.pixel_size
    return Preview(
        name=picture.name,
        height=height,
        width=width,
        pixel_size=(size.x, size.y) if size else None,
        picture=embed_image(shown, SIDE, _QUALITY, "jpeg"),
        thumbnail=embed_image(shown, _THUMBNAIL, _QUALITY, "jpeg"),
        nuclei=nuclei,
        count=count,
    )
