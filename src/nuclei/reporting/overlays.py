"""Outlines of nuclei over their image, coloured by hit or error: as pixels or as SVG paths.

Kinds of nuclei: a `hit` has an IoU above 0.5 with a nucleus of the other map. An annotated nucleus
is `split` if several predicted ones lie on it, and `missed` if none is a hit. A predicted nucleus
is `merged` if it lies on several annotated ones, and `extra` if it hits none.
"""

import base64
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from nuclei.arrays import Labels, UInt8Array
from nuclei.errors import UserError
from nuclei.evaluation.metric import outcomes

Outline = npt.NDArray[np.int32]

KIND_COLOURS = {
    "hit": (53, 196, 111),
    "missed": (255, 77, 77),
    "extra": (74, 168, 255),
    "split": (255, 102, 240),
    "merged": (255, 183, 0),
}
"""RGB colours of the kinds, distinct in hue and visible on dark and bright images."""

_HIT = 0.5


def nucleus_kinds(truth: Labels, predicted: Labels) -> tuple[list[str], list[str]]:
    """The kind of each annotated and of each predicted nucleus, in ascending order of labels."""
    found = outcomes(truth, predicted)
    annotated = np.where(found.split, "split", np.where(found.true_iou > _HIT, "hit", "missed"))
    made = np.where(found.merged, "merged", np.where(found.predicted_iou > _HIT, "hit", "extra"))
    return annotated.tolist(), made.tolist()


def find_outlines(label_map: Labels, tolerance: float = 0.7) -> list[list[Outline]]:
    """Outlines of each nucleus, labels ascending: for each piece (N, 2) int32, x and y.

    An outline stays within `tolerance` pixels of the boundary; 0 keeps all boundary pixels.
    """
    found = []
    for label, box in enumerate(ndimage.find_objects(label_map), start=1):
        if box is None:
            continue
        mask = (label_map[box] == label).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        corner = np.array([box[1].start, box[0].start])
        pieces = [cv2.approxPolyDP(contour, tolerance, True) if tolerance else contour for contour in contours]
        found.append([np.asarray(piece[:, 0] + corner, np.int32) for piece in pieces])
    return found


def svg_path(outlines: list[Outline]) -> str:
    """The closed outlines of a nucleus as the `d` of an SVG path, in relative moves."""
    parts = []
    for outline in outlines:
        steps = np.diff(outline, axis=0).ravel().tolist()
        line = "".join(f"{'' if step < 0 or not index else ' '}{step}" for index, step in enumerate(steps))
        parts.append(f"M{outline[0, 0]} {outline[0, 1]}l{line or '0 0'}z")
    return "".join(parts)


def shrink(image: UInt8Array, side: int) -> UInt8Array:
    """Shrinks an image (H, W, 3) uint8 to at most `side` pixels on each side, at least one."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    fy, fx = (max(scale, 1 / pixels) for pixels in image.shape[:2])
    return np.asarray(cv2.resize(image, None, fx=fx, fy=fy, interpolation=cv2.INTER_AREA), np.uint8)


def embed_image(image: UInt8Array, side: int, quality: int = 82, kind: Literal["webp", "jpeg"] = "webp") -> str:
    """Data URI of an RGB image (H, W, 3) uint8 as WebP or JPEG, at most `side` pixels long.

    Raises:
        UserError: OpenCV cannot encode it.
    """
    image = shrink(image, side)
    setting = cv2.IMWRITE_WEBP_QUALITY if kind == "webp" else cv2.IMWRITE_JPEG_QUALITY
    done, encoded = cv2.imencode(f".{kind}", np.ascontiguousarray(image[..., ::-1]), [setting, quality])
    if not done:
        raise UserError(
            f"OpenCV cannot encode an image of shape {image.shape} and type {image.dtype} as {kind}"
        )
    return f"data:image/{kind};base64," + base64.b64encode(encoded.tobytes()).decode()


def draw_comparison(image: UInt8Array, truth: Labels, predicted: Labels) -> UInt8Array:
    """Image, annotation, prediction side by side, (H, 3 * W, 3) uint8, outlines in KIND_COLOURS."""
    panels = [image, image.copy(), image.copy()]
    for panel, label_map, kinds in zip(
        panels[1:], (truth, predicted), nucleus_kinds(truth, predicted), strict=True
    ):
        for outlines, kind in zip(find_outlines(label_map, 0), kinds, strict=True):
            cv2.polylines(panel, outlines, True, KIND_COLOURS[kind])
    return np.hstack(panels)
