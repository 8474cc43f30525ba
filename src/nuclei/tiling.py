"""Maps of images too large for a network at once: tile by tile, as if the image had been predicted whole.

What keeps the seams out:

- A tile is read with a margin around it, of which the answer is thrown away: beyond it the network hardly looks.
- Tiles begin where the network's grid of halvings does, so that the same pixels are pooled together. The views of
  test-time averaging are views of the whole image, each with its own grid; the tile is cut out of the view.
- The window of intensities, and the statistics of z_score, are those of the whole image.
- Our own bilinear upsampling depends on the place in the image, and is told it (`models.blocks.Doubling`).

What a network takes from the whole image by itself (transformers, channel attention, instance and group normalisation)
it takes from tile and margin here, and a zoomed view is the zoomed tile: there tiles differ a little from the whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
import torch

from nuclei.ensemble import mean_of_maps
from nuclei.inference import Predictor, View, average_views, list_views
from nuclei.intensity import Limits, Pixels, UInt8Array, apply_limits, find_limits, measure_statistics, normalise
from nuclei.models.blocks import Span
from nuclei.targets import CHANNELS

WHOLE = 2**21
"""Images up to so many pixels are predicted whole."""
MARGIN = 192
"""Pixels read around a tile on each side."""
SIDE = 832
"""Side of a tile without its margin."""


class Box(NamedTuple):
    """Rows and columns of a part of an image, the last ones excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def grow(self, margin: int, shape: tuple[int, int], multiple: int = 1) -> "Box":
        """The box with a margin, its edges moved outwards to a multiple, within an image of `shape`."""
        top, left = ((start - margin) // multiple * multiple for start in self[:2])
        bottom, right = (-(-(stop + margin) // multiple) * multiple for stop in self[2:])
        return Box(max(0, top), max(0, left), min(shape[0], bottom), min(shape[1], right))

    def inside(self, outer: "Box") -> "Box":
        """The same place, counted from the corner of a box around it."""
        return Box(self.top - outer.top, self.left - outer.left, self.bottom - outer.top, self.right - outer.left)


def list_tiles(shape: tuple[int, int], side: int = SIDE) -> list[Box]:
    """Boxes of about that side that cover an image of `shape` without overlap, row by row."""
    rows, columns = (np.linspace(0, size, -(-size // side) + 1).round().astype(int).tolist() for size in shape)
    return [Box(top, left, bottom, right) for top, bottom in pairwise(rows) for left, right in pairwise(columns)]


@dataclass(frozen=True)
class Scene:
    """An image, which may lie on a disk, and what a network has to know of all of it."""

    image: Pixels
    limits: Limits | None
    statistics: tuple[float, float] | None

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    def read(self, box: Box) -> UInt8Array:
        """A part of the image (H, W, 3) uint8 in the window."""
        return apply_limits(np.asarray(self.image[box.slices]), self.limits)


def survey(predictor: Predictor, image: Pixels) -> Scene:
    """The image as this network is to see it.

    Raises:
        ValueError: an image that `intensity.window_image` refuses.
    """
    config = predictor.config
    limits = find_limits(image, config.intensity)
    needed = config.intensity.normalisation == "z_score"
    return Scene(image, limits, measure_statistics(image, limits, config.model.in_channels) if needed else None)


def predict_tiles(
    predictors: Sequence[Predictor], image: Pixels, side: int = SIDE, margin: int = MARGIN
) -> Iterator[tuple[Box, UInt8Array]]:
    """The image's tiles, each with the mean of the networks' maps (3, H, W) uint8."""
    scenes = [survey(predictor, image) for predictor in predictors]
    for tile in list_tiles(scenes[0].shape, side):
        pairs = zip(predictors, scenes, strict=True)
        each = [predict_tile(predictor, scene, tile, margin) for predictor, scene in pairs]
        yield tile, mean_of_maps(each)


def predict_tile(predictor: Predictor, scene: Scene, tile: Box, margin: int = MARGIN) -> UInt8Array:
    """Maps of one tile: probability * 255, (3, H, W) uint8."""
    prediction = predictor.config.prediction
    total = np.zeros((CHANNELS, tile.bottom - tile.top, tile.right - tile.left), np.float32)
    for scale in prediction.scales:
        if scale == 1:
            views = [_view_tile(predictor, scene, tile, view, margin) for view in list_views(prediction.flips)]
            total += torch.stack(views).mean(dim=0).numpy()
        else:
            total += _zoom_tile(predictor, scene, tile, scale, margin)
    return np.round(total * (255 / len(prediction.scales))).clip(0, 255).astype(np.uint8)


def _view_tile(predictor: Predictor, scene: Scene, tile: Box, view: View, margin: int) -> torch.Tensor:
    """Probabilities (3, H, W) of the tile, cut out of one view of the whole image."""
    shape = scene.shape[::-1] if view.transposed else scene.shape
    seen = _turn_box(tile, view, shape)
    read = seen.grow(margin, shape, int(predictor.model.multiple))
    part = scene.read(_turn_box_back(read, view, shape))
    pixels_CHW = view.turn(torch.from_numpy(_normalise(predictor, scene, part)))
    place = Span(read.top, shape[0]), Span(read.left, shape[1])
    rows, columns = seen.inside(read).slices
    return view.turn_back(predictor.forward_tile(pixels_CHW, place)[:, rows, columns])


def _turn_box(box: Box, view: View, shape: tuple[int, int]) -> Box:
    """Where a box of the image lies in its view, which is of `shape`."""
    top, left, bottom, right = (box.left, box.top, box.right, box.bottom) if view.transposed else box
    if -2 in view.mirror:
        top, bottom = shape[0] - bottom, shape[0] - top
    if -1 in view.mirror:
        left, right = shape[1] - right, shape[1] - left
    return Box(top, left, bottom, right)


def _turn_box_back(box: Box, view: View, shape: tuple[int, int]) -> Box:
    """Where a box of a view of `shape` lies in the image."""
    top, left, bottom, right = _turn_box(box, View(False, view.mirror), shape)
    return Box(left, top, right, bottom) if view.transposed else Box(top, left, bottom, right)


def _zoom_tile(predictor: Predictor, scene: Scene, tile: Box, scale: float, margin: int) -> UInt8Array:
    """Probabilities (3, H, W) float32 of the tile, from views of the zoomed tile and margin."""
    read = tile.grow(round(margin / min(scale, 1)), scene.shape)
    image = scene.read(read)
    height, width = image.shape[:2]
    size = max(16, round(width * scale)), max(16, round(height * scale))
    zoomed = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    pixels = torch.from_numpy(_normalise(predictor, scene, np.asarray(zoomed, np.uint8)))
    mean_CHW = average_views(predictor.forward, pixels, predictor.config.prediction.flips).numpy()
    rows, columns = tile.inside(read).slices
    return np.stack([cv2.resize(channel, (width, height)) for channel in mean_CHW])[:, rows, columns]


def _normalise(predictor: Predictor, scene: Scene, image: UInt8Array) -> np.ndarray:
    config = predictor.config
    return normalise(image, config.intensity.normalisation, config.model.in_channels, scene.statistics)
