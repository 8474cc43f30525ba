"""Augmentation of a batch of crops on a device, by the presets of `data.augmentation`.

Scale, flips, rotation and elastic deformation are one sampling of image and label map together;
colour, contrast, blur and noise follow. Every choice is a function of a crop's seed alone.

What albumentations has and this has not: JPEG compression, copy-paste and, in `laboratories`,
crowded and dimmed nuclei.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from nuclei.arrays import Float64Array, Int64Array
from nuclei.data import device_appearance as appearance
from nuclei.data.appearance import COLOURED, DARK, STAINS
from nuclei.data.counter_random import draw_noise, draw_uniforms

ROTATION = 45.0
"""Largest rotation in degrees."""
ELASTIC_ALPHA, ELASTIC_SIGMA, ELASTIC_RADIUS = 40.0, 6.0, 8
"""Strength and width of the elastic deformation, and half its kernel, in pixels of the crop."""
DRAWS = (
    "scale", "top", "left", "flip", "warp", "warp_kind", "angle", "exposure", "gain", "level", "stain",
    "stain_1", "stain_2", "stain_3", "offset_1", "offset_2", "offset_3", "haze", "haze_turn", "haze_blur",
    "haze_strength", "colour", "colour_kind", "order", "hue", "saturation", "value", "invert", "contrast",
    "contrast_kind", "first", "second", "filter", "filter_kind", "strength", "kernel",
)  # fmt: skip
"""What is drawn for a crop, in this order; new ones come last, so that the others stay."""


@dataclass(frozen=True)
class Ranges:
    """A preset: probability of each group of changes, weights of its kinds, ranges of strengths."""

    flips: int = 8
    """8: flips and transposes; 4: quarter turns; 1: none."""
    turned: float = 1.0
    """Probability of a flip or turn."""
    warp: float = 0.0
    """Of a rotation or an elastic deformation, equally often."""
    laboratories: bool = False
    """Other exposures, haze and stains."""
    colour: float = 0.0
    colour_weights: tuple[float, ...] = (1, 1, 1)
    """Grey, channel order, hue."""
    hue: tuple[float, float, float] = (0, 0, 0)
    """Largest shifts of hue (180 is a full turn), saturation and value (255)."""
    invert: float = 0.0
    contrast: float = 0.0
    contrast_weights: tuple[float, ...] = (1, 1, 1, 1)
    """Brightness and contrast, gamma, CLAHE, sharpening."""
    brightness: tuple[float, float] = (0, 0)
    """Largest shift of the brightness (1 is white) and change of the contrast."""
    gamma: tuple[float, float] = (1, 1)
    filter: float = 0.0
    filter_weights: tuple[float, ...] = (1, 0, 0)
    """Blur, lower resolution, noise."""
    sigma: tuple[float, float] = (0.5, 3.0)
    kernels: tuple[int, ...] = (1, 2)
    """Half widths of the blur's kernel; empty for one that holds three deviations."""
    noise: tuple[float, float] = (0, 0)


RANGES = {
    "nuclei": Ranges(
        warp=0.3, colour=0.3, hue=(20, 30, 15), invert=0.1, contrast=0.5, brightness=(0.2, 0.4), gamma=(0.6, 1.7),
        filter=0.25, filter_weights=(1, 0, 1), noise=(0.01, 0.08),
    ),
    "laboratories": Ranges(
        warp=0.3, laboratories=True, colour=0.35, colour_weights=(0.5, 0.5, 1), hue=(30, 50, 20), invert=0.1,
        contrast=0.6, contrast_weights=(0.5, 1, 0.5, 0.5), brightness=(0.25, 0.5), gamma=(0.45, 2.2), filter=0.4,
        filter_weights=(1, 0.5, 1), sigma=(0.5, 2.5), kernels=(), noise=(0.01, 0.1),
    ),
    "medical": Ranges(
        flips=4, turned=0.5, contrast=0.5, contrast_weights=(0, 1, 0, 0), gamma=(0.8, 1.2), filter=0.3,
    ),
    "none": Ranges(flips=1),
}  # fmt: skip
"""The presets of `data.augmentation`."""


class Draws:
    """Random numbers in (0, 1) of a batch by name, each (B,), and the ranges that they scale to."""

    def __init__(self, seeds: Int64Array, device: torch.device) -> None:
        self.seeds, self.device = seeds, device
        self._numbers = dict(zip(DRAWS, draw_uniforms(seeds, len(DRAWS)).T, strict=True))

    def __getitem__(self, name: str) -> Float64Array:
        numbers: Float64Array = self._numbers[name]
        return numbers

    def between(self, name: str, low: float, high: float) -> Float64Array:
        return np.asarray(low + (high - low) * self[name])

    def choose(self, name: str, probability: float) -> Int64Array:
        """Places in the batch of the crops that a change happens to."""
        return np.flatnonzero(self[name] < probability)

    def kind(self, name: str, weights: tuple[float, ...]) -> Int64Array:
        """Number of the kind of change of each crop, in proportion to the weights."""
        borders = np.cumsum(weights) / sum(weights)
        return np.searchsorted(borders, self[name], side="right").clip(max=len(weights) - 1)

    def to_device(self, array: npt.NDArray[Any]) -> torch.Tensor:
        """On the device; floats as float32."""
        plain = np.ascontiguousarray(array, np.float32 if array.dtype == np.float64 else None)
        return torch.from_numpy(plain).to(self.device, non_blocking=True)


# --- geometry -------------------------------------------------------------------------------------


def draw_windows(
    draws: Draws, sizes: Int64Array, side: int, scales: tuple[float, float]
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Side, top and left of each crop's square window in its image; as `augmentation.draw_crop`.

    A window larger than its image has it in the middle. `sizes` (B, 2) are heights and widths.
    """
    low, high = np.log(scales)
    windows = np.maximum(8, np.round(side / np.exp(draws.between("scale", low, high)))).astype(np.int64)
    corners = []
    for lengths, name in zip(sizes.T, ("top", "left"), strict=True):
        free = lengths - windows
        corners.append(np.where(free >= 0, np.floor(draws[name] * (free + 1)), -(-free // 2)).astype(np.int64))
    return windows, corners[0], corners[1]


def place_samples(
    draws: Draws, ranges: Ranges, windows: Int64Array, tops: Int64Array, lefts: Int64Array, side: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns in the images that the pixels of the crops show, (B, H, W) float32 each."""
    middles = torch.arange(side, device=draws.device, dtype=torch.float32) - (side - 1) / 2
    rows, columns = (
        each.expand(len(windows), side, side) for each in torch.meshgrid(middles, middles, indexing="ij")
    )
    rows, columns = _warp(draws, ranges, rows, columns)
    rows, columns = _turn(draws, ranges, rows, columns)
    steps = draws.to_device(windows / side)[:, None, None]
    middle_rows, middle_columns = (
        draws.to_device(corner + (windows - 1) / 2)[:, None, None] for corner in (tops, lefts)
    )
    return rows * steps + middle_rows, columns * steps + middle_columns


def _warp(
    draws: Draws, ranges: Ranges, rows: torch.Tensor, columns: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotates some crops and deforms others."""
    chosen = draws.choose("warp", ranges.warp)
    rotated = draws["warp_kind"] < 0.5
    angles = np.zeros(len(rotated))
    turned = chosen[rotated[chosen]]
    angles[turned] = np.radians(draws.between("angle", -ROTATION, ROTATION))[turned]
    sine, cosine = (draws.to_device(function(angles))[:, None, None] for function in (np.sin, np.cos))
    rows, columns = cosine * rows - sine * columns, sine * rows + cosine * columns
    deformed = chosen[~rotated[chosen]]
    if len(deformed):
        seeds, side = draws.to_device(draws.seeds[deformed]), rows.shape[1]
        noise = draw_noise(seeds, (2, side, side), stream=2)
        noise = noise / noise.abs().amax((1, 2, 3), keepdim=True)
        sigmas = torch.full((len(deformed),), ELASTIC_SIGMA, device=draws.device)
        shifts = ELASTIC_ALPHA * appearance.blur(noise, sigmas, None, ELASTIC_RADIUS)
        places = draws.to_device(deformed)
        rows = rows.index_add(0, places, shifts[:, 0])
        columns = columns.index_add(0, places, shifts[:, 1])
    return rows, columns


def _turn(
    draws: Draws, ranges: Ranges, rows: torch.Tensor, columns: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Flips and transposes. Bits of the number drawn: flip rows, flip columns, transpose."""
    number = np.floor(draws["flip"] * ranges.flips).astype(int)
    if ranges.flips == 4:
        # of the eight the four quarter turns, drawn with a probability by the range below it
        turned = draws["flip"] < ranges.turned
        number = np.where(turned, np.floor(draws["flip"] / ranges.turned * 4).astype(int), 0)
        number = np.array([0b000, 0b101, 0b011, 0b110])[number]
    down, right = (draws.to_device(1.0 - 2 * (number >> bit & 1))[:, None, None] for bit in (0, 1))
    transposed = draws.to_device(number >> 2 & 1)[:, None, None] == 1
    rows, columns = torch.where(transposed, columns, rows), torch.where(transposed, rows, columns)
    return rows * down, columns * right


# --- appearance -----------------------------------------------------------------------------------


def change_appearance(image_B3HW: torch.Tensor, draws: Draws, ranges: Ranges) -> torch.Tensor:
    """All changes of a preset but the geometric ones, in order; (B, 3, H, W) float32 in 0..255."""
    batch = _Batch(image_B3HW, draws)
    if ranges.laboratories:
        _change_laboratory(batch)
    kinds = draws.kind("colour_kind", ranges.colour_weights)
    chosen = draws.choose("colour", ranges.colour)
    batch.change(chosen[kinds[chosen] == 0], appearance.to_grey)
    shuffled = chosen[kinds[chosen] == 1]
    batch.change(shuffled, lambda image: appearance.shuffle_channels(image, draws["order"][shuffled]))
    hue, saturation, value = (
        draws.between(name, -most, most)
        for name, most in zip(("hue", "saturation", "value"), ranges.hue, strict=True)
    )
    batch.change(chosen[kinds[chosen] == 2], appearance.shift_hue, 2 * hue, saturation, value)
    batch.change(draws.choose("invert", ranges.invert), lambda image: 255 - image)
    _change_contrast(batch, ranges)
    _filter(batch, ranges)
    return batch.image


class _Batch:
    """Crops of which some are changed at a time."""

    def __init__(self, image_B3HW: torch.Tensor, draws: Draws) -> None:
        self.image, self.draws = image_B3HW, draws

    def change(
        self, chosen: Int64Array, change: Callable[..., torch.Tensor], *values: Float64Array | Int64Array
    ) -> None:
        """Changes the chosen crops; `values` (B,) are the parameters of all crops."""
        if len(chosen):
            places = self.draws.to_device(chosen)
            parameters = [self.draws.to_device(each[chosen]) for each in values]
            self.image[places] = change(self.image[places], *parameters)


def _change_contrast(batch: _Batch, ranges: Ranges) -> None:
    draws = batch.draws
    kinds = draws.kind("contrast_kind", ranges.contrast_weights)
    chosen = draws.choose("contrast", ranges.contrast)
    brightness, contrast = ranges.brightness
    factor, shift = (
        draws.between("first", 1 - contrast, 1 + contrast),
        draws.between("second", -brightness, brightness),
    )
    batch.change(chosen[kinds[chosen] == 0], appearance.change_contrast, factor, 255 * shift)
    batch.change(chosen[kinds[chosen] == 1], appearance.change_gamma, draws.between("first", *ranges.gamma))
    batch.change(chosen[kinds[chosen] == 2], appearance.equalise, draws.between("first", 1, 3))
    alpha, lightness = draws.between("first", 0.1, 0.4), draws.between("second", 0.5, 1.0)
    batch.change(chosen[kinds[chosen] == 3], appearance.sharpen, alpha, lightness)


def _filter(batch: _Batch, ranges: Ranges) -> None:
    draws = batch.draws
    kinds = draws.kind("filter_kind", ranges.filter_weights)
    chosen = draws.choose("filter", ranges.filter)
    sigma = draws.between("strength", *ranges.sigma)
    radius = np.ceil(3 * sigma).astype(np.int64)
    if ranges.kernels:
        radius = np.array(ranges.kernels)[(draws["kernel"] * len(ranges.kernels)).astype(int)]
    # the widest kernel is known here, so that nothing is read from the device
    most = max(ranges.kernels, default=int(np.ceil(3 * ranges.sigma[1])))
    blurred = chosen[kinds[chosen] == 0]
    batch.change(
        blurred, lambda image, *kernel: appearance.blur(image, kernel[0], kernel[1], most), sigma, radius
    )
    for number, scale in enumerate(np.linspace(0.4, 0.8, 5).tolist()):
        reduced = chosen[(kinds[chosen] == 1) & (np.floor(draws["strength"][chosen] * 5) == number)]
        batch.change(reduced, lambda image, scale=scale: appearance.reduce_resolution(image, scale))
    deviation = 255 * draws.between("strength", *ranges.noise)
    batch.change(chosen[kinds[chosen] == 2], appearance.add_noise, deviation, draws.seeds)


def _change_laboratory(batch: _Batch) -> None:
    """Haze and exposure of fluorescence, and the stains of tissue, as `appearance` has them."""
    draws = batch.draws
    # the median is below a level where more than half of the values are
    dark = ((batch.image < DARK).float().mean((1, 2, 3)) > 0.5)[:, None, None, None]
    spread = batch.image.amax(1) - batch.image.amin(1)
    stained = ~dark & (spread.mean((1, 2)) >= COLOURED)[:, None, None, None]
    before = batch.image.clone()
    turns = 1 + np.floor(3 * draws["haze_turn"]).astype(int)
    hazy = draws.choose("haze", 0.15)
    for turn in (1, 2, 3):
        batch.change(
            hazy[turns[hazy] == turn],
            lambda image, sigma, strength, turn=turn: add_haze(image, sigma, strength, turn),
            draws.between("haze_blur", 3, 12),
            draws.between("haze_strength", 0.2, 0.7),
        )
    gain = np.exp(draws.between("gain", np.log(0.25), np.log(1.6)))
    exposed = draws.choose("exposure", 0.35)
    batch.change(exposed, appearance.change_contrast, gain, draws.between("level", 0, 20))
    batch.image = torch.where(dark, batch.image, before)
    before = batch.image.clone()
    factors = [draws.between(f"stain_{number}", 0.6, 1.5) for number in (1, 2, 3)]
    offsets = [draws.between(f"offset_{number}", -0.06, 0.06) for number in (1, 2, 3)]
    batch.change(draws.choose("stain", 0.5), change_stains, *factors, *offsets)
    batch.image = torch.where(stained, batch.image, before)


def add_haze(
    image_B3HW: torch.Tensor, sigma_B: torch.Tensor, strength_B: torch.Tensor, turns: int
) -> torch.Tensor:
    """Adds the turned and blurred crop to itself; see `appearance.add_haze`."""
    # a blur of 12 pixels is made at a quarter of the size
    small = functional.avg_pool2d(image_B3HW.rot90(turns, (2, 3)), 4)
    radius = min(9, min(small.shape[2:]) - 1)
    blurred = appearance.blur(small, sigma_B / 4, None, radius)
    blurred = functional.interpolate(blurred, tuple(image_B3HW.shape[2:]), mode="bilinear")
    hazy = image_B3HW + appearance.column(strength_B) * blurred
    return hazy * (255 / hazy.amax((1, 2, 3), keepdim=True).clamp_min(1)).clamp_max(1)


def change_stains(image_B3HW: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
    """Stain jitter, see `appearance.jitter_stains`; three factors and three offsets, each (B,)."""
    stains, inverse = (torch.from_numpy(each).to(image_B3HW.device) for each in (STAINS, np.linalg.inv(STAINS)))
    density = -torch.log((image_B3HW + 1) / 256)
    amounts = torch.einsum("bchw,cs->bshw", density, inverse)
    factors, offsets = (torch.stack(values[start : start + 3], 1)[:, :, None, None] for start in (0, 3))
    changed = torch.einsum("bshw,sc->bchw", amounts * factors + offsets, stains)
    return (256 * torch.exp(-changed) - 1).clamp(0, 255)
