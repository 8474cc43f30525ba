"""Maps of images too large for a network at once: tile by tile, as if the image had been predicted whole.

What keeps the seams out:

- A tile is read with a margin around it, of which the answer is thrown away: beyond it the network hardly looks.
- Tiles begin where the network's grid of halvings does, so that the same pixels are pooled together. The views of
  test-time averaging are views of the whole image, each with its own grid; the tile is cut out of the view.
- The window of intensities, and the statistics of z_score, are those of the whole image.
- Our own bilinear upsampling depends on the place in the image, and is told it (`models.blocks.Doubling`).
- The size of the nuclei, where zooms depend on it, is taken from the tile in the middle for all of them.
- A zoomed tile is cut out of the zoomed image, which is resampled just there, and so are its maps on the way back.

What a network takes from the whole image by itself (transformers, channel attention, instance and group normalisation)
it takes from tile and margin here: there tiles differ a little from the whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch

from nuclei.arrays import CHANNELS, Float32Array, Pixels, UInt8Array
from nuclei.data.intensity import Limits, apply_limits, find_limits, measure_statistics, normalise
from nuclei.inference.predictor import Predictor, zoom_size
from nuclei.inference.tta import View
from nuclei.io.probability_maps import mean_of_maps
from nuclei.models.blocks import Span

WHOLE = 2**21
"""Images up to so many pixels are predicted whole."""
MARGIN = 256
"""Pixels read around a tile on each side, from which on an EfficientNet encoder's maps differ by 1 of 255 at most."""
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
    """An image, which may lie on a disk, in one zoom, and what a network has to know of all of it."""

    image: Pixels
    limits: Limits | None
    statistics: tuple[float, float] | None
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.image.shape[:2]
        return (height, width) if self.scale == 1 else (zoom_size(height, self.scale), zoom_size(width, self.scale))

    def read(self, box: Box) -> UInt8Array:
        """A part of the image (H, W, 3) uint8 in the window."""
        if self.scale == 1:
            return apply_limits(np.asarray(self.image[box.slices]), self.limits)
        height, width = self.shape
        if self.scale > 1:
            rows = Neighbours.find(self.image.shape[0], height, box.top, box.bottom)
            columns = Neighbours.find(self.image.shape[1], width, box.left, box.right)
            return enlarge(apply_limits(np.asarray(self.image[rows.span, columns.span]), self.limits), rows, columns)
        rows_span, row_weights = resample(self.image.shape[0], height, box.top, box.bottom, area=True)
        columns_span, column_weights = resample(self.image.shape[1], width, box.left, box.right, area=True)
        source = apply_limits(np.asarray(self.image[rows_span, columns_span]), self.limits).astype(np.float32)
        # the channels go first, for the products of matrices
        zoomed = row_weights @ source.transpose(2, 0, 1) @ column_weights.T
        return np.floor(zoomed.transpose(1, 2, 0) + 0.5).astype(np.uint8)


class Neighbours(NamedTuple):
    """For each pixel of a part of an enlarged axis the two it lies between (from `span` on) and the share of `high`."""

    span: slice
    low: npt.NDArray[np.intp]
    high: npt.NDArray[np.intp]
    share: Float32Array

    @classmethod
    def find(cls, source: int, target: int, start: int, stop: int) -> Self:
        """Those of start..stop on an axis of `source` pixels that is enlarged to `target`."""
        middles = ((np.arange(start, stop) + 0.5) * (source / target) - 0.5).astype(np.float32)
        low = np.floor(middles).astype(np.intp)
        first, last = max(0, int(low[0])), min(source - 1, int(low[-1]) + 1)
        inside = np.clip(low, 0, source - 1) - first, np.clip(low + 1, 0, source - 1) - first
        return cls(slice(first, last + 1), *inside, (middles - low).astype(np.float32))


def enlarge(image: UInt8Array, rows: Neighbours, columns: Neighbours) -> UInt8Array:
    """Part of an enlarged image (H, W, 3) uint8, to the last bit what OpenCV's linear interpolation has there.

    A network may answer to a difference of 1 of 255 in what it sees with one of 90, so close is not enough here.
    OpenCV counts in whole numbers: shares are of 2048, and the sum is cut three times.
    """
    right, below = (np.rint(axis.share * 2048).astype(np.int32) for axis in (columns, rows))
    left, above = (np.rint((1 - axis.share) * 2048).astype(np.int32) for axis in (columns, rows))
    pixels = image.astype(np.int32)
    lines = (pixels[:, columns.low] * left[:, None] + pixels[:, columns.high] * right[:, None]) >> 4
    upper, lower = (above[:, None, None] * lines[rows.low]) >> 16, (below[:, None, None] * lines[rows.high]) >> 16
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def resample(source: int, target: int, start: int, stop: int, area: bool = False) -> tuple[slice, Float32Array]:
    """Of an axis of `source` pixels resized to `target`: the pixels that start..stop is made from, and their weights.

    The weights are (stop - start, pixels): linear between the middles of pixels, or the mean over the area of the new
    pixel, as OpenCV resizes.
    """
    ratio = source / target
    if area and ratio > 1:
        begins = np.arange(start, stop)[:, None] * ratio
        first, last = int(begins[0, 0]), min(source, int(np.ceil(begins[-1, 0] + ratio)))
        pixels = np.arange(first, last)
        weights = np.minimum(begins + ratio, pixels + 1) - np.maximum(begins, pixels)
        return slice(first, last), (weights.clip(0) / ratio).astype(np.float32)
    middles = ((np.arange(start, stop) + 0.5) * ratio - 0.5).clip(0, source - 1)
    first, last = int(middles[0]), min(source, int(middles[-1]) + 2)
    weights = 1 - np.abs(middles[:, None] - np.arange(first, last))
    return slice(first, last), weights.clip(0).astype(np.float32)


def survey(predictor: Predictor, image: Pixels) -> Scene:
    """The image as this network is to see it.

    Raises:
        UserError: an image that `intensity.window_image` refuses.
    """
    config = predictor.config
    limits = find_limits(image, config.intensity)
    needed = config.intensity.normalisation == "z_score"
    return Scene(image, limits, measure_statistics(image, limits, config.model.in_channels) if needed else None)


def predict_tiles(
    predictors: Sequence[Predictor],
    image: Pixels,
    side: int = SIDE,
    margin: int = MARGIN,
    weights: Sequence[float] | None = None,
) -> Iterator[tuple[Box, UInt8Array]]:
    """The image's tiles, each with the mean of the networks' maps (3, H, W) uint8, equal or by ensemble weights."""
    scenes = [survey(predictor, image) for predictor in predictors]
    tiles = list_tiles(scenes[0].shape, side)
    middle = tiles[len(tiles) // 2]
    pairs = zip(predictors, scenes, strict=True)
    looks = [(predictor, scene, predictor.choose_scales(scene.read(middle))) for predictor, scene in pairs]
    for tile in tiles:
        yield tile, mean_of_maps([predict_tile(*look, tile, margin) for look in looks], weights)


def predict_tile(
    predictor: Predictor, scene: Scene, scales: tuple[float, ...], tile: Box, margin: int = MARGIN
) -> UInt8Array:
    """Maps of one tile, the mean over zooms of the scene: probability * 255, (3, H, W) uint8."""
    total = np.zeros((CHANNELS, tile.bottom - tile.top, tile.right - tile.left), np.float32)
    for place, scale in enumerate(scales):
        views = predictor.choose_views(scale, place)
        total += _zoom_tile(predictor, replace(scene, scale=scale), tile, views, margin)
    return np.round(total * (255 / len(scales))).clip(0, 255).astype(np.uint8)


def _zoom_tile(predictor: Predictor, scene: Scene, tile: Box, views: Sequence[View], margin: int) -> Float32Array:
    """Probabilities (3, H, W) of the tile by the views of a zoomed scene."""
    if scene.scale == 1:
        return _average_views(predictor, scene, tile, views, margin)
    rows, row_weights = resample(scene.shape[0], scene.image.shape[0], tile.top, tile.bottom)
    columns, column_weights = resample(scene.shape[1], scene.image.shape[1], tile.left, tile.right)
    zoomed = np.zeros((CHANNELS, rows.stop - rows.start, columns.stop - columns.start), np.float32)
    for part in list_tiles(zoomed.shape[1:]):  # a tile larger than others would take more memory than others
        there = Box(*(edge + corner for edge, corner in zip(part, 2 * (rows.start, columns.start), strict=True)))
        zoomed[(slice(None), *part.slices)] = _average_views(predictor, scene, there, views, margin)
    return np.asarray(row_weights @ zoomed @ column_weights.T)


def _average_views(predictor: Predictor, scene: Scene, tile: Box, views: Sequence[View], margin: int) -> Float32Array:
    answers = [_view_tile(predictor, scene, tile, view, margin) for view in views]
    return np.asarray(torch.stack(answers).mean(dim=0).numpy())


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


def _normalise(predictor: Predictor, scene: Scene, image: UInt8Array) -> np.ndarray:
    config = predictor.config
    return normalise(image, config.intensity.normalisation, config.model.in_channels, scene.statistics)
