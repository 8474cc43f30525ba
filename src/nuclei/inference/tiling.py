"""Tiled prediction (sliding window): maps of images too large for one forward pass, without seams.

What avoids seams:

- A tile is read with a margin, whose output is dropped: more distant pixels are outside the
  effective receptive field.
- Tiles begin at multiples of the network's downsampling, so that the same pixels are pooled
  together. The flips of test-time augmentation are flips of the whole image, each with its own
  grid; the tile is cut out of the flipped image.
- The intensity window, and the statistics of z_score, are those of the whole image.
- Bilinear upsampling with aligned corners depends on the position in the image, and is told it
  (`models.blocks.BilinearUpsampling`).
- Where scales depend on the size of the nuclei, that of the middle tile decides for all tiles. Where
  the foreground map is calibrated by the rims of the nuclei, the middle tile gives what all have in
  common, and a tile is calibrated with a margin.
- A scaled tile is cut out of the scaled image, which is resampled there only, and so are its maps.

What a network computes over the whole image (transformers, channel attention, instance and group
normalisation) is computed over tile and margin: there tiles differ a little from the whole image.
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
from nuclei.inference.predictor import Predictor, scaled_size
from nuclei.inference.tta import Flip
from nuclei.io.probability_maps import mean_of_maps
from nuclei.models.blocks import TileOffset
from nuclei.postprocessing.rim_calibration import RimPrior, calibrate_rims, measure_prior

WHOLE = 2**21
"""Images of up to this many pixels are predicted whole."""
RIM_MARGIN = 64
"""Pixels around a tile whose maps are calibrated with it."""
SIDE = 1024
"""Side of a tile without its margin."""
ENLARGED = 1408
"""Longest side of what is predicted at once of an enlarged tile, without its margin; a larger one would
take more memory than a whole image of `WHOLE` pixels."""


class Box(NamedTuple):
    """A rectangle of an image: rows top..bottom and columns left..right, the last ones excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def grow(self, margin: int, shape: tuple[int, int], multiple: int = 1) -> "Box":
        """The box with a margin, its edges moved outwards to a multiple and clipped to an image of
        `shape`.
        """
        top, left = ((start - margin) // multiple * multiple for start in self[:2])
        bottom, right = (-(-(stop + margin) // multiple) * multiple for stop in self[2:])
        return Box(max(0, top), max(0, left), min(shape[0], bottom), min(shape[1], right))

    def inside(self, outer: "Box") -> "Box":
        """The same rectangle relative to the corner of a box around it."""
        return Box(
            self.top - outer.top,
            self.left - outer.left,
            self.bottom - outer.top,
            self.right - outer.left,
        )

    def shift(self, rows: int, columns: int) -> "Box":
        return Box(self.top + rows, self.left + columns, self.bottom + rows, self.right + columns)


def list_tiles(shape: tuple[int, int], side: int = SIDE) -> list[Box]:
    """Boxes with sides of about `side` that cover an image of `shape` without overlap, row by
    row.
    """
    rows, columns = (np.linspace(0, size, -(-size // side) + 1).round().astype(int).tolist() for size in shape)
    return [
        Box(top, left, bottom, right) for top, bottom in pairwise(rows) for left, right in pairwise(columns)
    ]


@dataclass(frozen=True)
class ScaledImage:
    """An image, which may be memory-mapped, at one scale, with the statistics of the whole that
    every tile needs.
    """

    image: Pixels
    limits: Limits | None
    statistics: tuple[float, float] | None
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.image.shape[:2]
        if self.scale == 1:
            return height, width
        return scaled_size(height, self.scale), scaled_size(width, self.scale)

    def read(self, box: Box) -> UInt8Array:
        """A part of the image (H, W, 3) uint8, with the intensity window applied."""
        if self.scale == 1:
            return apply_limits(np.asarray(self.image[box.slices]), self.limits)
        height, width = self.shape
        if self.scale > 1:
            rows = LinearSamples.find(self.image.shape[0], height, box.top, box.bottom)
            columns = LinearSamples.find(self.image.shape[1], width, box.left, box.right)
            return enlarge(
                apply_limits(np.asarray(self.image[rows.span, columns.span]), self.limits),
                rows,
                columns,
            )
        rows_span, row_weights = resample(self.image.shape[0], height, box.top, box.bottom, area=True)
        columns_span, column_weights = resample(self.image.shape[1], width, box.left, box.right, area=True)
        source = apply_limits(np.asarray(self.image[rows_span, columns_span]), self.limits).astype(np.float32)
        # channels first, for the matrix products
        resized = row_weights @ source.transpose(2, 0, 1) @ column_weights.T
        return np.floor(resized.transpose(1, 2, 0) + 0.5).astype(np.uint8)


class LinearSamples(NamedTuple):
    """Linear interpolation for a part of an enlarged axis: per pixel, the two that it lies between.

    `low` and `high` count from the start of `span`; `weight` is that of `high`.
    """

    span: slice
    low: npt.NDArray[np.intp]
    high: npt.NDArray[np.intp]
    weight: Float32Array

    @classmethod
    def find(cls, source: int, target: int, start: int, stop: int) -> Self:
        """The samples of start..stop on an axis of `source` pixels that is enlarged to `target`."""
        middles = ((np.arange(start, stop) + 0.5) * (source / target) - 0.5).astype(np.float32)
        low = np.floor(middles).astype(np.intp)
        first, last = max(0, int(low[0])), min(source - 1, int(low[-1]) + 1)
        inside = np.clip(low, 0, source - 1) - first, np.clip(low + 1, 0, source - 1) - first
        return cls(slice(first, last + 1), *inside, (middles - low).astype(np.float32))


def enlarge(image: UInt8Array, rows: LinearSamples, columns: LinearSamples) -> UInt8Array:
    """Part of an enlarged image (H, W, 3) uint8, bit for bit as OpenCV's linear interpolation.

    Bit for bit, because a difference of 1 of 255 in its input can change a network's output by 90.
    OpenCV computes with integers: weights in units of 1/2048, and a sum that is truncated three
    times.
    """
    right, below = (np.rint(axis.weight * 2048).astype(np.int32) for axis in (columns, rows))
    left, above = (np.rint((1 - axis.weight) * 2048).astype(np.int32) for axis in (columns, rows))
    pixels = image.astype(np.int32)
    lines = (pixels[:, columns.low] * left[:, None] + pixels[:, columns.high] * right[:, None]) >> 4
    upper, lower = (
        (above[:, None, None] * lines[rows.low]) >> 16,
        (below[:, None, None] * lines[rows.high]) >> 16,
    )
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def resample(source: int, target: int, start: int, stop: int, area: bool = False) -> tuple[slice, Float32Array]:
    """Resizing of an axis of `source` pixels to `target`: the pixels from which start..stop is
    made, and their weights.

    The weights are (stop - start, pixels): linear between pixel centres, or the mean over the new
    pixel's area, as OpenCV resizes.
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


def measure_image(predictor: Predictor, image: Pixels) -> ScaledImage:
    """The image at scale 1 with the window and the statistics that this network needs.

    Raises:
        UserError: an image that `intensity.window_image` refuses.
    """
    config = predictor.config
    limits = find_limits(image, config.intensity)
    needed = config.intensity.normalisation == "z_score"
    statistics = measure_statistics(image, limits, config.model.in_channels) if needed else None
    return ScaledImage(image, limits, statistics)


def predict_tiles(
    predictors: Sequence[Predictor],
    image: Pixels,
    side: int = SIDE,
    margin: int | None = None,
    weights: Sequence[float] | None = None,
) -> Iterator[tuple[Box, UInt8Array]]:
    """Yields the image's tiles, each with the mean of the networks' maps (3, H, W) uint8, weighted
    if asked. The margin is that of each network where none is given.
    """
    measured = [measure_image(predictor, image) for predictor in predictors]
    tiles = list_tiles(measured[0].shape, side)
    middle = tiles[len(tiles) // 2]
    networks = [
        _TiledNetwork(predictor, scaled, middle, predictor.tile_margin if margin is None else margin)
        for predictor, scaled in zip(predictors, measured, strict=True)
    ]
    for tile in tiles:
        yield tile, mean_of_maps([network(tile) for network in networks], weights)


class _TiledNetwork:
    """A network with the scales and the calibration that the middle tile of an image asks for."""

    def __init__(self, predictor: Predictor, scaled: ScaledImage, middle: Box, margin: int) -> None:
        self.predictor, self.scaled, self.margin = predictor, scaled, margin
        image = scaled.read(middle)
        self.scales = predictor.choose_scales(image)
        self.level = predictor.config.prediction.rim_level
        self.prior: RimPrior | None = None
        if self.level is not None:
            self.prior = measure_prior(self._predict(middle, margin), image)

    def __call__(self, tile: Box) -> UInt8Array:
        if self.level is None or self.prior is None:
            return self._predict(tile, self.margin)
        # nuclei at the tile's edge are seen with what surrounds them, as in the neighbouring tile
        around = min(RIM_MARGIN, self.margin)
        read = tile.grow(around, self.scaled.shape)
        maps = self._predict(read, self.margin - around)
        maps = calibrate_rims(maps, self.scaled.read(read), self.level, self.prior)
        return np.ascontiguousarray(maps[(slice(None), *tile.inside(read).slices)])

    def _predict(self, box: Box, margin: int) -> UInt8Array:
        return predict_tile(self.predictor, self.scaled, self.scales, box, margin)


def predict_tile(
    predictor: Predictor,
    scaled: ScaledImage,
    scales: tuple[float, ...],
    tile: Box,
    margin: int | None = None,
) -> UInt8Array:
    """Maps of one tile, the mean over scales of the image: probability * 255, (3, H, W) uint8."""
    margin = predictor.tile_margin if margin is None else margin
    total = np.zeros((CHANNELS, tile.bottom - tile.top, tile.right - tile.left), np.float32)
    for index, scale in enumerate(scales):
        flips = predictor.choose_flips(scale, index)
        total += _predict_at_scale(predictor, replace(scaled, scale=scale), tile, flips, margin)
    return np.round(total * (255 / len(scales))).clip(0, 255).astype(np.uint8)


def _predict_at_scale(
    predictor: Predictor, scaled: ScaledImage, tile: Box, flips: Sequence[Flip], margin: int
) -> Float32Array:
    """Probabilities (3, H, W) of a tile of the original image, predicted in the scaled image."""
    if scaled.scale == 1:
        return _average_flips(predictor, scaled, tile, flips, margin)
    rows, row_weights = resample(scaled.shape[0], scaled.image.shape[0], tile.top, tile.bottom)
    columns, column_weights = resample(scaled.shape[1], scaled.image.shape[1], tile.left, tile.right)
    maps = np.zeros((CHANNELS, rows.stop - rows.start, columns.stop - columns.start), np.float32)
    for part in list_tiles(maps.shape[1:], ENLARGED):
        box = part.shift(rows.start, columns.start)
        maps[(slice(None), *part.slices)] = _average_flips(predictor, scaled, box, flips, margin)
    return np.asarray(row_weights @ maps @ column_weights.T)


def _average_flips(
    predictor: Predictor, scaled: ScaledImage, tile: Box, flips: Sequence[Flip], margin: int
) -> Float32Array:
    outputs = [_predict_flipped(predictor, scaled, tile, flip, margin) for flip in flips]
    return np.asarray(torch.stack(outputs).mean(dim=0).numpy())


def _predict_flipped(
    predictor: Predictor, scaled: ScaledImage, tile: Box, flip: Flip, margin: int
) -> torch.Tensor:
    """Probabilities (3, H, W) of the tile, cut out of the flipped whole image."""
    shape = scaled.shape[::-1] if flip.transposed else scaled.shape
    flipped = _flip_box(tile, flip, shape)
    read = flipped.grow(margin, shape, int(predictor.model.multiple))
    part = scaled.read(_unflip_box(read, flip, shape))
    pixels_CHW = flip.apply(torch.from_numpy(_normalise(predictor, scaled, part)))
    offsets = TileOffset(read.top, shape[0]), TileOffset(read.left, shape[1])
    rows, columns = flipped.inside(read).slices
    return flip.undo(predictor.forward_tile(pixels_CHW, offsets)[:, rows, columns])


def _flip_box(box: Box, flip: Flip, shape: tuple[int, int]) -> Box:
    """A box of the image in the flipped image, which has `shape`."""
    top, left, bottom, right = (box.left, box.top, box.right, box.bottom) if flip.transposed else box
    if -2 in flip.axes:
        top, bottom = shape[0] - bottom, shape[0] - top
    if -1 in flip.axes:
        left, right = shape[1] - right, shape[1] - left
    return Box(top, left, bottom, right)


def _unflip_box(box: Box, flip: Flip, shape: tuple[int, int]) -> Box:
    """A box of the flipped image, which has `shape`, in the image."""
    top, left, bottom, right = _flip_box(box, Flip(False, flip.axes), shape)
    return Box(left, top, right, bottom) if flip.transposed else Box(top, left, bottom, right)


def _normalise(predictor: Predictor, scaled: ScaledImage, image: UInt8Array) -> np.ndarray:
    config = predictor.config
    return normalise(image, config.intensity.normalisation, config.model.in_channels, scaled.statistics)
