"""Leaves out objects by size, and long thin ones: a bright fibre that was taken for nuclei."""

import math
import re
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from nuclei.arrays import BoolArray, Int64Array, LabelMap
from nuclei.errors import UserError
from nuclei.io.picture import PixelSize
from nuclei.postprocessing.label_ops import count_areas, keep_labels

FIBRE_STRETCH = 5.0
"""Area of a fibre over that of its largest inscribed circle; 1 for a circle, the ratio of its axes
for an ellipse."""
FIBRE_LENGTH = 4.0
"""Length of a fibre in typical diameters of the plane's nuclei."""
_PIECE_STRETCH = 3.0
"""Of the further pieces of a fibre, which touch it and are about as thin."""
_PIECE_WIDTH = 1.4
_AREA = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(px|um2|um\^2|µm2|µm²|μm2|μm²)?\s*")


@dataclass(frozen=True)
class Area:
    """An area in pixels, or in square micrometres."""

    value: float
    is_um2: bool = False

    def pixels(self, size: PixelSize | None) -> float:
        """The area in pixels of a size in micrometres.

        Raises:
            UserError: the size of a pixel is not known and the area is in micrometres.
        """
        if not self.is_um2:
            return self.value
        if size is None:
            raise UserError(
                f"an area of {self} needs the size of a pixel, which the file does not say; give PIXEL_SIZE= in "
                "micrometres, or areas in pixels"
            )
        return self.value / (size.x * size.y)

    def __str__(self) -> str:
        return f"{self.value:g} {'µm²' if self.is_um2 else 'pixels'}"


def read_area(value: float | str | None, setting: str) -> Area | None:
    """The area of a setting: a number of pixels, or text such as 20um2; None where there is none.

    Raises:
        UserError: no number above 0, or another unit.
    """
    if value is None or value == "":
        return None
    found = _AREA.fullmatch(str(value)) if not isinstance(value, bool) else None
    try:
        number = float(found[1]) if found else math.nan
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UserError(f"{setting}={value}: expected pixels, such as 40, or square micrometres, such as 20um2")
    return Area(number, bool(found and found[2] not in (None, "px")))


@dataclass(frozen=True)
class LeftOut:
    """Numbers of objects that were left out of a plane, by the reason."""

    small: int = 0
    large: int = 0
    fibres: int = 0

    @property
    def total(self) -> int:
        return self.small + self.large + self.fibres

    def describe(self) -> list[str]:
        """What was left out, in words; nothing where nothing was."""
        kinds = {"below the smallest area": self.small, "above the largest area": self.large}
        kinds["long and thin as fibres"] = self.fibres
        said = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
        return [f"left out: {said}"] if said else []


def leave_out(
    label_map: LabelMap, smallest: float | None, largest: float | None, keep_fibres: bool
) -> tuple[int, LeftOut]:
    """Removes objects from a label map (H, W) in place; the number that is left, as 1..N, and what was removed.

    `smallest` and `largest` are areas in pixels that are still kept. Objects are fibres by their
    shape beside the typical size of all objects of the plane, see `find_fibres`.
    """
    areas = count_areas(label_map)
    present = areas > 0
    fibres = np.zeros(len(areas), bool) if keep_fibres else find_fibres(label_map, areas)
    small = present & ~fibres & (areas < (smallest or 0))
    large = present & ~fibres & (areas > (largest or math.inf))
    left_out = LeftOut(int(small.sum()), int(large.sum()), int(fibres.sum()))
    keep = present & ~(small | large | fibres)
    return (keep_labels(label_map, keep) if left_out.total else int(present.sum())), left_out


def find_fibres(label_map: LabelMap, areas: Int64Array) -> BoolArray:
    """Whether each label is a fibre or a piece of one, (N + 1,); `areas` are in pixels by label, 0 for background.

    A fibre has a stretch of FIBRE_STRETCH and is as long as FIBRE_LENGTH typical nuclei of the
    plane, whose diameter is the median. Of the 28,986 annotated nuclei of the competition's
    training images one is such an object. Long thin pieces that touch a fibre belong to it.
    """
    boxes = ndimage.find_objects(label_map)
    radii = np.array([1.0, *(_inscribed_radius(label_map, label, box) for label, box in enumerate(boxes, 1))])
    stretch = areas / (math.pi * radii**2)
    diameters = np.sqrt(4 / math.pi * areas[areas > 0])
    typical = float(np.median(diameters)) if len(diameters) else math.inf
    is_fibre = (stretch >= FIBRE_STRETCH) & (areas >= FIBRE_LENGTH * typical * 2 * radii)
    fresh = np.flatnonzero(is_fibre)
    while len(fresh):
        pieces = np.zeros(len(areas), bool)
        for label in fresh:
            touching = _list_touching(label_map, int(label), boxes[label - 1])
            pieces[touching] |= radii[touching] <= _PIECE_WIDTH * radii[label]
        pieces &= (stretch >= _PIECE_STRETCH) & ~is_fibre
        fresh = np.flatnonzero(pieces)
        is_fibre |= pieces
    return is_fibre


def _inscribed_radius(label_map: LabelMap, label: int, box: tuple[slice, slice] | None) -> float:
    """Radius in pixels of the largest circle in an object; 1 for a label without pixels."""
    if box is None:
        return 1.0
    height, width = (side.stop - side.start for side in box)
    mask = np.zeros((height + 2, width + 2), np.uint8)
    mask[1:-1, 1:-1] = label_map[box] == label
    return float(cv2.distanceTransform(mask, cv2.DIST_L2, 5).max()) - 0.5


def _list_touching(label_map: LabelMap, label: int, box: tuple[slice, slice]) -> Int64Array:
    """The labels of other objects that touch one."""
    around = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
    part = np.asarray(label_map[around])
    near = cv2.dilate((part == label).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    found = np.unique(part[near])
    return np.asarray(found[(found != label) & (found != 0)], np.int64)
