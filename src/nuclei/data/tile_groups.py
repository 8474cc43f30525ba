"""Groups of images from one picture: tiles, matched by their edges, and near-duplicates.

Most images of the competition are tiles of a picture that was cut into 2 x 2. If a tile is in
training and its neighbour in the held-out fold, scores are too high.

Every image is compared with every other one of its size and kind, up to `WINDOW` of them. Of more
images only those are compared that are near each other in an order in which images of one picture
are neighbours, so that time grows with the number of images and not with its square.
Source: Hernandez and Stolfo 1995, the sorted neighbourhood method.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from nuclei.arrays import Float64Array
from nuclei.io.images import is_grey

Mosaic = tuple[str, str, str, str]

SCALES = (1, 4, 16, 64)
"""Lengths in pixels over which an edge is averaged before it is compared: 1 sees texture, 64 the
background's level."""
NEIGHBOURS = 12
"""Best partners of an edge that are tried."""
MAX_COST = 0.6
"""Mean cost of a mosaic's four seams above which it is none; true mosaics of the archive stay below
0.4."""
MAX_CANDIDATES = 8
"""Possible mosaics for each tile up to which the best disjoint ones are found exactly (the archive
has 5.4 at most). Above it, as with many small dark images, that takes minutes: the cheapest come
first."""
MAX_PAIR_COST = 1.0
"""Cost of a single seam above which two tiles are no neighbours."""
MIN_EVIDENCE = 2.0
"""How much cheaper than its tiles' typical seams a mosaic must be (true ones: 3.2 at least): flat
edges of one brightness match each other without being neighbours."""
MIN_SIMILARITY = 0.6
"""Correlation of near-duplicates' thumbnails: copies in the archive have 0.97, slices of one embryo
0.65, unrelated images at most 0.41."""
MIN_CORRELATION = 0.8
"""Correlation along the seam of two tiles that are neighbours without the rest of their mosaic.
Such pairs of the archive have 0.89 or more, the next likely ones, which are no neighbours, 0.42."""
WINDOW = 1024
"""Images that are compared with each other; windows overlap by half. The archive has fewer."""
ORDERS = 4
"""Orders by which more thumbnails than that are compared; duplicates are close in one of them."""


@dataclass(frozen=True)
class ImageSignature:
    """What the search for tiles and near-duplicates needs of an image."""

    shape: tuple[int, int]
    is_grey: bool
    edges: dict[str, tuple[Float64Array, Float64Array]]
    """For top, bottom, left and right: the outermost line of pixels and the next one, (length,
    channels) each."""
    thumbnail: Float64Array
    """32 x 32 log intensities, high-passed, of unit norm."""


def image_signature(image: npt.NDArray[np.uint8]) -> ImageSignature:
    """Signature of an image (H, W, 3) uint8."""
    single = is_grey(image)
    pixels = image[..., :1] if single else image
    height, width = pixels.shape[:2]
    lines = {
        "top": (pixels[0], pixels[min(1, height - 1)]),
        "bottom": (pixels[-1], pixels[max(height - 2, 0)]),
        "left": (pixels[:, 0], pixels[:, min(1, width - 1)]),
        "right": (pixels[:, -1], pixels[:, max(width - 2, 0)]),
    }
    edges = {
        side: (outer.astype(np.float64), inner.astype(np.float64)) for side, (outer, inner) in lines.items()
    }
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    thumbnail = np.log1p(grey.astype(np.float64))
    thumbnail -= cv2.GaussianBlur(thumbnail, (0, 0), 6)
    thumbnail -= thumbnail.mean()
    norm = float(np.linalg.norm(thumbnail))
    return ImageSignature((height, width), single, edges, thumbnail / norm if norm > 1e-6 else thumbnail * 0)


def find_groups(signatures: Mapping[str, ImageSignature]) -> dict[str, str]:
    """Group of each image id: smallest id of the images that share a picture with it or its own."""
    parent = {image_id: image_id for image_id in signatures}

    def root(image_id: str) -> str:
        while parent[image_id] != image_id:
            parent[image_id] = image_id = parent[parent[image_id]]
        return image_id

    mosaics = find_mosaics(signatures)
    for family in [
        *mosaics,
        *find_neighbours(signatures, mosaics),
        *find_near_duplicates(signatures),
    ]:
        roots = {root(image_id) for image_id in family}
        for old in roots:
            parent[old] = min(roots)
    return {image_id: root(image_id) for image_id in sorted(signatures)}


def find_near_duplicates(signatures: Mapping[str, ImageSignature]) -> list[tuple[str, str]]:
    """Sorted pairs of ids whose thumbnails are nearly equal, whatever their brightness and size."""
    ids = sorted(signatures)
    if len(ids) < 2:
        return []
    thumbnails = np.stack([signatures[image_id].thumbnail.ravel() for image_id in ids])
    directions = np.random.default_rng(0).standard_normal((thumbnails.shape[1], ORDERS))
    pairs: set[tuple[str, str]] = set()
    for keys in (thumbnails @ directions).T if len(ids) > WINDOW else [np.zeros(len(ids))]:
        for window in _cut_windows(keys):
            part = thumbnails[window]
            first, second = np.nonzero(np.triu(part @ part.T > MIN_SIMILARITY, 1))
            pairs |= {(ids[i], ids[k]) for i, k in zip(window[first], window[second], strict=True)}
    return sorted(pairs)


def _cut_windows(keys: Float64Array) -> list[npt.NDArray[np.int64]]:
    """Row numbers of the images, ascending, in windows of `WINDOW` by the order of their keys."""
    order, half = np.argsort(keys, kind="stable"), WINDOW // 2
    starts = range(0, max(1, len(order) - half), half)
    return [np.sort(order[start : start + WINDOW]) for start in starts]


def find_mosaics(signatures: Mapping[str, ImageSignature]) -> list[Mosaic]:
    """Pictures cut into 2 x 2 tiles: ids of top left, top right, bottom left and bottom right tile.

    Only tiles of the same size and kind (grey or colour) are put together; a tile is in one mosaic
    of a window at most, and the choice among rival mosaics is the cheapest of all possible ones.
    """
    mosaics: list[Mosaic] = []
    for ids in _classes(signatures):
        if len(ids) < 4:
            continue
        tiles = [signatures[image_id] for image_id in ids]
        across, down = _seam_costs(tiles, "right", "left"), _seam_costs(tiles, "bottom", "top")
        for a, b, c, d in _choose_disjoint(*_possible_mosaics(across, down), len(ids)):
            mosaics.append((ids[a], ids[b], ids[c], ids[d]))
    return sorted(set(mosaics))


def find_neighbours(
    signatures: Mapping[str, ImageSignature], mosaics: Sequence[Mosaic]
) -> list[tuple[str, str]]:
    """Pairs of tiles (left, right or upper, lower) with the same nuclei on both sides of a seam.

    They are the rest of a mosaic whose other tiles are not in the archive, or join two mosaics of a
    larger picture. Among a thousand edges some match by chance, so two mosaics are joined only
    by both tiles along a side. Neighbours with nothing but background between them are not found.
    """
    mosaic_of = {image_id: number for number, mosaic in enumerate(mosaics) for image_id in mosaic}
    pairs = []
    for ids in _classes(signatures):
        tiles = [signatures[image_id] for image_id in ids]
        for side, facing in (("right", "left"), ("bottom", "top")):
            found = [(ids[i], ids[k]) for i, k in _matching_edges(tiles, side, facing)]
            joins = [(mosaic_of.get(first, first), mosaic_of.get(second, second)) for first, second in found]
            for pair, join in zip(found, joins, strict=True):
                if joins.count(join) > 1 or not set(pair) <= mosaic_of.keys():
                    pairs.append(pair)
    return sorted(set(pairs))


def _matching_edges(tiles: Sequence[ImageSignature], side: str, facing: str) -> list[tuple[int, int]]:
    """Pairs of tiles that are each other's best match along `side`, with the same pattern there."""
    cost = _seam_costs(tiles, side, facing)
    nearest = cost.argmin(axis=0)
    pairs = []
    for first, second in enumerate(cost.argmin(axis=1)):
        if nearest[second] == first and cost[first, second] < MAX_PAIR_COST:
            edges = tiles[first].edges[side][0].ravel(), tiles[second].edges[facing][0].ravel()
            if np.corrcoef(*edges)[0, 1] > MIN_CORRELATION:
                pairs.append((first, int(second)))
    return pairs


def _classes(signatures: Mapping[str, ImageSignature]) -> list[list[str]]:
    """Ids of images of one size and kind, grey or colour: only they can be tiles of one picture."""
    classes: dict[tuple[tuple[int, int], bool], list[str]] = {}
    for image_id in sorted(signatures):
        classes.setdefault((signatures[image_id].shape, signatures[image_id].is_grey), []).append(image_id)
    return [window for ids in classes.values() if len(ids) > 1 for window in _windows(ids, signatures)]


def _windows(ids: list[str], signatures: Mapping[str, ImageSignature]) -> list[list[str]]:
    """The ids of a class, in windows by the brightness of their edges where there are many."""
    if len(ids) <= WINDOW:
        return [ids]
    edges = ([outer.mean() for outer, _ in signatures[image_id].edges.values()] for image_id in ids)
    keys = np.array([np.mean(means) for means in edges])
    return [[ids[number] for number in window] for window in _cut_windows(keys)]


def _seam_costs(tiles: Sequence[ImageSignature], side: str, facing: str) -> Float64Array:
    """Cost (N, N) of setting tile k behind the `side` of tile i.

    It is the log ratio of the step across the seam to the steps inside the two tiles, the mean over
    SCALES: about 0 where the picture goes on. Infinite for a tile beside itself and for a constant
    edge, which proves nothing.
    """
    near, near_inner = (np.stack([tile.edges[side][k] for tile in tiles]) for k in range(2))
    far, far_inner = (np.stack([tile.edges[facing][k] for tile in tiles]) for k in range(2))
    scales = [scale for scale in SCALES if scale == 1 or near.shape[1] >= 2 * scale]
    cost = np.zeros((len(tiles), len(tiles)))
    for scale in scales:
        a, a_inner, b, b_inner = (_average(edge, scale) for edge in (near, near_inner, far, far_inner))
        seam = (a**2).mean(1)[:, None] + (b**2).mean(1)[None] - 2 * a @ b.T / a.shape[1]
        inside = (((a - a_inner) ** 2).mean(1)[:, None] + ((b - b_inner) ** 2).mean(1)[None]) / 2
        rounding = 1 / scale
        cost += np.log((np.maximum(seam, 0) + rounding) / (inside + rounding)) / len(scales)
    cost[np.ptp(near, axis=1).max(1) == 0, :] = np.inf
    cost[:, np.ptp(far, axis=1).max(1) == 0] = np.inf
    np.fill_diagonal(cost, np.inf)
    return cost


def _average(edges: Float64Array, scale: int) -> Float64Array:
    """Edges (N, length, channels) averaged over `scale` pixels, as (N, blocks x channels)."""
    count, length, channels = edges.shape
    blocks = length // scale
    averaged: Float64Array = edges[:, : blocks * scale].reshape(count, blocks, scale, channels).mean(axis=2)
    return averaged.reshape(count, -1)


def _possible_mosaics(across: Float64Array, down: Float64Array) -> tuple[npt.NDArray[np.int64], Float64Array]:
    """Tiles (M, 4) and mean seam costs (M,) of all 2 x 2 mosaics cheaper than chance."""
    rights = np.argsort(across, axis=1, kind="stable")[:, :NEIGHBOURS].tolist()
    belows = np.argsort(down, axis=1, kind="stable")[:, :NEIGHBOURS].tolist()
    chance = (_typical(across) + _typical(down)) / 2
    tiles, costs = [], []
    for a in range(len(across)):
        for b in rights[a]:
            for c in belows[a]:
                for d in sorted(set(belows[b]) & set(rights[c])):
                    cost = (across[a, b] + across[c, d] + down[a, c] + down[b, d]) / 4
                    quad = [a, b, c, d]
                    if len(set(quad)) == 4 and cost < min(MAX_COST, chance[quad].mean() - MIN_EVIDENCE):
                        tiles.append(quad)
                        costs.append(cost)
    return np.array(tiles, np.int64).reshape(-1, 4), np.array(costs, np.float64)


def _typical(cost: Float64Array) -> Float64Array:
    """Median finite cost (N,) of each tile against all others on either side."""
    both = np.where(np.isfinite(np.hstack([cost, cost.T])), np.hstack([cost, cost.T]), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # a tile with constant edges: all is NaN, no mosaic passes
        typical: Float64Array = np.nanmedian(both, axis=1)
        return typical


def _choose_disjoint(quads: npt.NDArray[np.int64], costs: Float64Array, n_tiles: int) -> list[list[int]]:
    """The mosaics that together save most (MAX_COST - cost each) with every tile used once at most;
    of very many the cheapest.
    """
    if not len(quads):
        return []
    if len(quads) > MAX_CANDIDATES * n_tiles:
        return _choose_cheapest(quads, costs)
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_matrix

    columns = np.repeat(np.arange(len(quads)), 4)
    uses = coo_matrix((np.ones(quads.size), (quads.ravel(), columns)), shape=(n_tiles, len(quads))).tocsr()
    solution = milp(
        costs - MAX_COST,
        constraints=LinearConstraint(uses, -np.inf, 1),
        bounds=Bounds(0, 1),
        integrality=np.ones(len(quads)),
        options={
            "node_limit": 1000
        },  # the archive needs one; without it hundreds of like images could take hours
    )
    assert solution.x is not None, solution.message
    chosen: list[list[int]] = quads[solution.x > 0.5].tolist()
    return chosen


def _choose_cheapest(quads: npt.NDArray[np.int64], costs: Float64Array) -> list[list[int]]:
    """Disjoint mosaics, the cheapest first."""
    chosen: list[list[int]] = []
    used: set[int] = set()
    for quad in quads[np.argsort(costs, kind="stable")].tolist():
        if used.isdisjoint(quad):
            chosen.append(quad)
            used.update(quad)
    return chosen
