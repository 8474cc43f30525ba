"""Annotation checks: measurements of each nucleus, and possible annotation errors.

No finding proves an error: a hole may be a vacuole, and an unlabelled bright object may be glare.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.filters import threshold_otsu

from nuclei.arrays import Int64Array, LabelMap
from nuclei.postprocessing.otsu import MIN_AREA, nuclear_brightness, split_touching

REASONS = {
    "known": "known to be badly annotated",
    "unlabelled": "objects as bright (on bright background, as dark) as the annotated nuclei that no nucleus covers",
    "few": "at most two nuclei annotated",
    "left out": "masks that other masks cover completely",
    "overlap": "pixels in several masks; they belong to the smallest one",
    "hole": "background or other nuclei enclosed by a nucleus",
    "pieces": "one nucleus in several pieces",
    "huge": "nuclei far larger than the image's others",
    "tiny": "nuclei far smaller than the image's others",
}
"""Reasons to check an annotation, the most severe first."""

FEW = 2
"""Largest number of nuclei that counts as few (4 of the 664 real training images)."""
TINY, HUGE = 0.25, 2.5
"""Diameters relative to the image's median: nuclei at most, or at least, as large are findings."""
UNLABELLED = 2
"""Smallest number of unlabelled objects that is a finding; a single one is mostly debris."""

_COMPARABLE = 5
"""Smallest number of nuclei for a meaningful median size."""
_DIM = 0.25
"""Quantile of the annotated brightness that an unlabelled object must exceed."""
_SMALL, _LARGE = 0.4, 4.0
"""Range of areas relative to the image's median that a nucleus may have."""
_SOLID = 0.85
"""Smallest solidity of a nucleus: a clump, a thread or glare fills less of its convex hull."""
_CONTRAST = 0.5
"""Smallest contrast of an object to its surroundings, relative to that of the annotated nuclei."""
_NEAR = np.ones((5, 5), np.uint8)
_AROUND = np.ones((11, 11), np.uint8)
_SPECK = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


@dataclass(frozen=True)
class Nuclei:
    """The nuclei of a label map, labels ascending; every field has one value each, (N,) int64."""

    labels: Int64Array
    areas: Int64Array
    """Pixels."""
    sides: Int64Array
    """Pixel sides along the boundary; the edge of the image does not count."""
    touching_sides: Int64Array
    """Pixel sides along the boundary with another nucleus on the other side."""
    cut: Int64Array
    """Pixels in the outermost rows and columns of the image: above 0 the nucleus may be cut off."""
    pieces: Int64Array
    """Connected pieces, diagonals included."""
    enclosed: Int64Array
    """Pixels in holes, of the background or of other nuclei."""

    @property
    def diameters(self) -> npt.NDArray[np.float64]:
        """Diameters of discs of the same areas."""
        return np.asarray(2 * np.sqrt(self.areas / np.pi))


class Finding(NamedTuple):
    """A possible annotation error: one of REASONS, its number or size, a text, labels concerned."""

    reason: str
    number: int
    words: str
    labels: list[int]


def measure_nuclei(label_map: LabelMap) -> Nuclei:
    """Areas, boundaries, pieces and holes of all nuclei of a label map (H, W), gaps allowed."""
    areas = np.bincount(label_map.ravel(), minlength=1)
    sides, touching = np.zeros_like(areas), np.zeros_like(areas)
    for here, there in ((label_map[1:], label_map[:-1]), (label_map[:, 1:], label_map[:, :-1])):
        parted = here != there
        ones, others = here[parted], there[parted]
        both = (ones > 0) & (others > 0)
        for labels in (ones, others):
            sides += np.bincount(labels, minlength=len(areas))
            touching += np.bincount(labels[both], minlength=len(areas))
    edges = np.concatenate([label_map[0], label_map[-1], label_map[1:-1, 0], label_map[1:-1, -1]])
    cut = np.bincount(edges, minlength=len(areas))
    labels = np.flatnonzero(areas[1:]) + 1
    boxes = ndimage.find_objects(label_map)
    shapes = [_pieces_and_holes(label_map[boxes[label - 1]] == label) for label in labels]
    pieces, enclosed = np.array(shapes, np.int64).reshape(-1, 2).T
    return Nuclei(labels, areas[labels], sides[labels], touching[labels], cut[labels], pieces, enclosed)


def _pieces_and_holes(mask: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Number of connected pieces of a mask (H, W), and number of pixels in its holes."""
    pieces, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    count, parts, statistics, _ = cv2.connectedComponentsWithStats(outside, connectivity=4)
    if count == 2:  # the mask, and one background
        return pieces - 1, 0
    return pieces - 1, int(statistics[1:, cv2.CC_STAT_AREA].sum() - statistics[parts[0, 0], cv2.CC_STAT_AREA])


def find_holes(label_map: LabelMap, labels: list[int]) -> LabelMap:
    """Label map (H, W) of the holes of these nuclei, each with the label of its nucleus."""
    found = np.zeros_like(label_map)
    for label in labels:
        mask = label_map == label
        found[ndimage.binary_fill_holes(mask) & ~mask] = label
    return found


def find_unlabelled(image: npt.NDArray[np.uint8], label_map: LabelMap) -> LabelMap:
    """Label map (H, W) of objects in an image (H, W, 3) uint8 that look like unannotated nuclei.

    They are brighter than Otsu's threshold and than a quarter of the annotated pixels (darker, on a
    bright background), of similar area as the annotated nuclei, and solid. Without annotated
    nuclei, Otsu's threshold alone decides.
    """
    brightness = nuclear_brightness(image)
    found = np.zeros(label_map.shape, np.int32)
    if brightness.min() == brightness.max():
        return found
    annotated = label_map > 0
    typical = _median_area(label_map)
    dim = float(np.quantile(brightness[annotated], _DIM)) if annotated.any() else 0.0
    bright = ndimage.binary_fill_holes(brightness > max(float(threshold_otsu(brightness)), dim))
    away = bright & (cv2.dilate(annotated.astype(np.uint8), _NEAR) == 0)
    opened = cv2.morphologyEx(away.astype(np.uint8), cv2.MORPH_OPEN, _SPECK)
    least = max(float(MIN_AREA), _SMALL * typical)
    most = _LARGE * typical if typical else np.inf
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    large = statistics[:, cv2.CC_STAT_AREA] >= least
    large[0] = False
    if not large.any():
        return found
    objects = split_touching(large[parts])
    contrast = _CONTRAST * _contrast_of(brightness, annotated, annotated)
    for label, box in enumerate(ndimage.find_objects(objects), start=1):
        mask = objects[box] == label
        if not least <= np.count_nonzero(mask) <= most or _solidity(mask) < _SOLID:
            continue
        wide = tuple(slice(max(side.start - 8, 0), side.stop + 8) for side in box)
        if _contrast_of(brightness[wide], objects[wide] == label, annotated[wide]) >= contrast:
            found[box][mask] = found.max() + 1
    return found


def _contrast_of(
    brightness: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]
) -> float:
    """Contrast: median of a mask (H, W) less the upper quartile around it, pixels of `other` aside.

    The edge of a bright area has little contrast, since half of its surroundings are bright.
    """
    near, around = (cv2.dilate(mask.astype(np.uint8), size) > 0 for size in (_NEAR, _AROUND))
    ring = around & ~near & ~other
    if not mask.any() or not ring.any():
        return 0.0
    return float(np.median(brightness[mask]) - np.quantile(brightness[ring], 0.75))


def _median_area(label_map: LabelMap) -> float:
    areas = np.bincount(label_map.ravel())[1:]
    return float(np.median(areas[areas > 0])) if areas.any() else 0.0


def _solidity(mask: npt.NDArray[np.bool_]) -> float:
    """Area of a mask (H, W) divided by that of its convex hull."""
    points = np.argwhere(mask)[:, ::-1].astype(np.int32)
    hull = cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), cv2.convexHull(points), 1)
    return float(mask.sum()) / float(max(hull.sum(), 1))


def find_suspicious(nuclei: Nuclei, unlabelled: int) -> list[Finding]:
    """Possible errors in an image's annotation, from the measured nuclei.

    `unlabelled` is the number of objects that `find_unlabelled` found.
    """
    findings = []
    if unlabelled >= UNLABELLED:
        findings.append(Finding("unlabelled", unlabelled, f"{unlabelled} objects", []))
    if len(nuclei.labels) <= FEW:
        findings.append(Finding("few", len(nuclei.labels), _count(len(nuclei.labels)), nuclei.labels.tolist()))
    for reason, values, words in (
        ("hole", nuclei.enclosed, "pixels"),
        ("pieces", np.where(nuclei.pieces > 1, nuclei.pieces, 0), "pieces"),
    ):
        which = values > 0
        if which.any():
            shown = ", ".join(str(value) for value in sorted(values[which].tolist(), reverse=True)[:5])
            findings.append(_of_nuclei(reason, nuclei, which, f"{shown} {words}"))
    if len(nuclei.labels) >= _COMPARABLE:
        sizes = nuclei.diameters / float(np.median(nuclei.diameters))
        huge, tiny = sizes >= HUGE, (sizes <= TINY) & (nuclei.cut == 0)
        if huge.any():
            findings.append(
                _of_nuclei("huge", nuclei, huge, f"up to {sizes.max():.1f} times the median diameter")
            )
        if tiny.any():
            smallest = nuclei.areas[tiny].min()
            findings.append(_of_nuclei("tiny", nuclei, tiny, f"down to {smallest} pixels"))
    return sorted(findings, key=lambda finding: list(REASONS).index(finding.reason))


def _of_nuclei(reason: str, nuclei: Nuclei, which: npt.NDArray[np.bool_], words: str) -> Finding:
    count = int(which.sum())
    return Finding(reason, count, f"{_count(count)}: {words}", nuclei.labels[which].tolist())


def _count(nuclei: Any) -> str:
    return "1 nucleus" if nuclei == 1 else f"{nuclei or 'no'} nuclei"
