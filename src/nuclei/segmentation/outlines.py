"""Outlines of nuclei along the edges of pixels, as polygons with holes.

x runs to the right and y down from the image's corner, so that filling an outline gives back the
nucleus pixel by pixel. All nuclei of a batch are traced at once: every side of a pixel towards a
background pixel is an edge, and from each edge the next one is known by its end alone.
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from nuclei.arrays import Int64Array
from nuclei.segmentation.flat_masks import FlatMasks, flatten_masks
from nuclei.segmentation.measurements import Nucleus

Ring = Int64Array
"""Corners (N, 2), x and y, of a closed line, the last not repeated."""
Polygon = list[Ring]
"""An outer ring and the holes in it."""


def find_polygons(nuclei: Sequence[Nucleus], flat: FlatMasks | None = None) -> list[list[Polygon]]:
    """The polygons of each nucleus in the image's coordinates.

    `flat` are the masks of the nuclei, which are flattened here where it is absent.
    """
    traced = trace_masks(flat or flatten_masks([nucleus.mask for nucleus in nuclei]))
    return [
        group_rings([ring + np.array([nucleus.left, nucleus.top]) for ring in rings])
        for nucleus, rings in zip(nuclei, traced, strict=True)
    ]


def trace_masks(flat: FlatMasks) -> list[list[Ring]]:
    """The lines around each mask.

    By the shoelace formula outer lines have a positive area, lines around holes a negative one. A line
    that meets itself at a corner is several.
    """
    rings: list[list[Ring]] = [[] for _ in flat.offsets]
    if not rings:
        return rings
    starts, directions, owners, following = _find_edges(flat)
    first, order = _order_rings(following)
    turns = np.empty(len(starts), bool)
    turns[following] = directions[following] != directions
    order = order[turns[order]]  # edges on straight stretches are left out
    ys, xs = flat.locate(starts[order], owners[order])
    points, numbers = np.stack([xs, ys], axis=1), first[order]
    ends = [*(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    begin = 0
    for end in ends if len(numbers) else []:
        rings[int(owners[order[begin]])] += _split_at_repeats(points[begin:end])
        begin = end
    return rings


def _find_edges(flat: FlatMasks) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array]:
    """Of each edge its start, direction and mask, and the number of the edge that follows.

    An edge runs with the nucleus on its right. Directions are 0 right, 1 down, 2 left, 3 up. Corners
    of pixels are numbered like the pixel at their lower right.
    """
    pixels, steps = flat.indices, flat.steps
    sides = []  # of each side the pixel beyond, and where the edge starts and ends
    sides.append((pixels - steps, pixels, pixels + 1))
    sides.append((pixels + 1, pixels + 1, pixels + 1 + steps))
    sides.append((pixels + steps, pixels + 1 + steps, pixels + steps))
    sides.append((pixels - 1, pixels + steps, pixels))
    outer = [~flat.inside[beyond] for beyond, _, _ in sides]
    starts, ends = (
        np.concatenate([side[part][free] for side, free in zip(sides, outer, strict=True)]) for part in (1, 2)
    )
    owners = np.concatenate([flat.owners[free] for free in outer])
    directions = np.repeat(np.arange(4), [np.count_nonzero(free) for free in outer])
    numbers = np.full((4, len(flat.inside)), -1, np.int64)
    numbers[directions, starts] = np.arange(len(starts))
    # where two pixels meet at a corner two edges begin: the one to the right stays with the pixel
    following = numbers[(directions + 1) % 4, ends]
    for turn in (0, 3):
        following = np.where(following >= 0, following, numbers[(directions + turn) % 4, ends])
    return starts, directions, owners, following


def _order_rings(following: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Of each edge the smallest number in its ring, and the edges in order, ring by ring from that one on.

    Distances are doubled in each round, so there are as many rounds as a ring's length has binary digits.
    """
    first, ahead = np.arange(len(following)), following
    while True:
        smaller = np.minimum(first, first[ahead])
        if np.array_equal(smaller, first):
            break
        first, ahead = smaller, ahead[ahead]
    last = first == following
    left = (~last).astype(np.int64)
    ahead = np.where(last, np.arange(len(following)), following)
    while not last[ahead].all():
        left += left[ahead]
        ahead = ahead[ahead]
    return first, np.lexsort((-left, first))


def _split_at_repeats(points: Ring) -> list[Ring]:
    """The ring, or its parts where it passes a point twice."""
    corners = list(map(tuple, points.tolist()))
    if len(set(corners)) == len(corners):
        return [points]
    rings, line, seen = [], [corners[0]], {corners[0]: 0}
    for point in [*corners[1:], corners[0]]:
        if point not in seen:
            seen[point] = len(line)
            line.append(point)
            continue
        begin = seen[point]
        rings.append(np.array(line[begin:], np.int64))
        for passed in line[begin + 1 :]:
            del seen[passed]
        line = line[: begin + 1]
    return rings


def ring_area(ring: Ring) -> float:
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def group_rings(rings: Iterable[Ring]) -> list[Polygon]:
    """Polygons: each an outer ring and the holes in it."""
    rings = list(rings)
    if len(rings) == 1:
        return [rings]
    polygons = [[ring] for ring in rings if ring_area(ring) > 0]
    for hole in (ring for ring in rings if ring_area(ring) < 0):
        # the middle of a pixel of the hole, at its leftmost corner
        x, y = (hole[np.lexsort(hole.T[::-1])[0]] + 0.5).tolist()
        holders = [
            polygon
            for polygon in polygons
            if cv2.pointPolygonTest(polygon[0].astype(np.float32), (x, y), False) > 0
        ]
        min(holders, key=lambda polygon: ring_area(polygon[0])).append(hole)
    return polygons
