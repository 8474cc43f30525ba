"""Colour, contrast, blur and noise augmentation of a batch of crops on a device (GPU).

Images are (B, 3, H, W) float32 in 0..255. Every change works on the crops that drew it, all at
once. Parameters are (B,) float32, so one call serves crops of different strengths.
"""

import numpy as np
import torch
from torch.nn import functional

from nuclei.arrays import Float64Array
from nuclei.data.counter_random import draw_noise

GREY = (0.299, 0.587, 0.114)
TILES, LEVELS = 8, 256
"""Tiles a side and grey levels of CLAHE."""
ORDERS = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
WHITE = np.array([0.950456, 1.0, 1.088754])
"""Of the sRGB colour space, as OpenCV has them."""


def column(values_B: torch.Tensor) -> torch.Tensor:
    """(B,) as (B, 1, 1, 1), for arithmetic with images."""
    return values_B[:, None, None, None]


def to_grey(image_B3HW: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor(GREY, device=image_B3HW.device)[:, None, None]
    return (image_B3HW * weights).sum(1, keepdim=True).expand_as(image_B3HW)


def shuffle_channels(image_B3HW: torch.Tensor, draws: Float64Array) -> torch.Tensor:
    """Channels in one of the six orders, chosen by a number in (0, 1) for each crop."""
    orders = torch.from_numpy(ORDERS[(draws * len(ORDERS)).astype(int)]).to(image_B3HW.device)
    return image_B3HW.gather(1, orders[:, :, None, None].expand_as(image_B3HW))


def shift_hue(
    image_B3HW: torch.Tensor, hue_B: torch.Tensor, saturation_B: torch.Tensor, value_B: torch.Tensor
) -> torch.Tensor:
    """Hue turned by degrees, saturation and value (0..255) shifted."""
    value, _ = image_B3HW.max(1)
    spread = value - image_B3HW.min(1).values
    safe = spread.clamp_min(1e-6)
    red, green, blue = image_B3HW.unbind(1)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = torch.where(spread > 0, hue, 0.0) + hue_B[:, None, None] / 60
    saturation = (spread / value.clamp_min(1e-6) + saturation_B[:, None, None] / 255).clamp(0, 1)
    value = (value + value_B[:, None, None]).clamp(0, 255)
    # a channel falls from the value by a trapezium of the hue; red, green and blue are 1/3 apart
    channels = []
    for offset in (5.0, 3.0, 1.0):
        place = (hue + offset).remainder(6)
        fall = torch.minimum(place, 4 - place).clamp(0, 1)
        channels.append(value * (1 - saturation * fall))
    return torch.stack(channels, 1)


def change_contrast(image_B3HW: torch.Tensor, factor_B: torch.Tensor, shift_B: torch.Tensor) -> torch.Tensor:
    return (image_B3HW * column(factor_B) + column(shift_B)).clamp(0, 255)


def change_gamma(image_B3HW: torch.Tensor, gamma_B: torch.Tensor) -> torch.Tensor:
    return 255 * (image_B3HW / 255).clamp_min(1e-6) ** column(gamma_B)


def sharpen(image_B3HW: torch.Tensor, alpha_B: torch.Tensor, lightness_B: torch.Tensor) -> torch.Tensor:
    """A mix of the image and of its difference from the eight neighbours."""
    padded = functional.pad(image_B3HW, (1, 1, 1, 1), mode="reflect")
    neighbours = 9 * functional.avg_pool2d(padded, 3, stride=1) - image_B3HW
    effect = (8 + column(lightness_B)) * image_B3HW - neighbours
    return (image_B3HW + column(alpha_B) * (effect - image_B3HW)).clamp(0, 255)


def blur(
    maps_BCHW: torch.Tensor, sigma_B: torch.Tensor, radius_B: torch.Tensor | None, most: int
) -> torch.Tensor:
    """Gaussian blur; kernels end `most` pixels from their middle, or earlier at `radius_B`."""
    places = torch.arange(-most, most + 1, device=maps_BCHW.device)
    kernel_BK = torch.exp(-(places**2) / (2 * sigma_B[:, None] ** 2))
    if radius_B is not None:
        kernel_BK = kernel_BK * (places.abs() <= radius_B[:, None])
    kernel_BK = kernel_BK / kernel_BK.sum(1, keepdim=True)
    count, channels, height, width = maps_BCHW.shape
    kernels = kernel_BK.repeat_interleave(channels, 0)[:, None, None]
    padded = functional.pad(maps_BCHW, (most, most, most, most), mode="reflect")
    flat = padded.reshape(1, count * channels, height + 2 * most, width + 2 * most)
    flat = functional.conv2d(flat, kernels, groups=count * channels)
    flat = functional.conv2d(flat, kernels.transpose(2, 3), groups=count * channels)
    return flat.reshape(count, channels, height, width)


def add_noise(image_B3HW: torch.Tensor, deviation_B: torch.Tensor, seeds_B: torch.Tensor) -> torch.Tensor:
    """Noise of each pixel and channel; deviations are of 0..255."""
    noise = draw_noise(seeds_B, tuple(image_B3HW.shape[1:]), stream=1)
    return (image_B3HW + column(deviation_B) * noise).clamp(0, 255)


def reduce_resolution(image_B3HW: torch.Tensor, scale: float) -> torch.Tensor:
    """The image reduced and enlarged again."""
    size = tuple(image_B3HW.shape[2:])
    small = [max(1, round(length * scale)) for length in size]
    reduced = functional.interpolate(image_B3HW, small, mode="area")
    return functional.interpolate(reduced, size, mode="bilinear")


def equalise(image_B3HW: torch.Tensor, clip_B: torch.Tensor) -> torch.Tensor:
    """Contrast limited adaptive histogram equalisation (CLAHE) of the lightness in CIE Lab."""
    light_B1HW, others = split_lightness(image_B3HW)
    levels_BHW = light_B1HW[:, 0].round().clamp(0, LEVELS - 1).long()
    equal_BHW = _equalise_levels(levels_BHW, clip_B)
    return join_lightness(equal_BHW[:, None], others)


def _equalise_levels(levels_BHW: torch.Tensor, clip_B: torch.Tensor) -> torch.Tensor:
    count, height, width = levels_BHW.shape
    high, wide = height // TILES, width // TILES
    tiles = levels_BHW[:, : high * TILES, : wide * TILES].reshape(count, TILES, high, TILES, wide)
    tiles = tiles.permute(0, 1, 3, 2, 4).reshape(count * TILES**2, high * wide)
    histogram = torch.zeros((count * TILES**2, LEVELS), device=levels_BHW.device)
    histogram.scatter_add_(1, tiles, torch.ones(1, device=tiles.device).expand(tiles.shape))
    area = high * wide
    limit = (clip_B * area / LEVELS).floor().clamp_min(1).repeat_interleave(TILES**2)[:, None]
    clipped = torch.minimum(histogram, limit)
    clipped = clipped + _spread((histogram - clipped).sum(1, keepdim=True))
    table = (clipped.cumsum(1) * ((LEVELS - 1) / area)).round().reshape(count, TILES, TILES, LEVELS)
    # between the middles of four tiles their tables are interpolated
    rows = (torch.arange(height, device=table.device) + 0.5) / high - 0.5
    columns = (torch.arange(width, device=table.device) + 0.5) / wide - 0.5
    top, left = rows.floor(), columns.floor()
    batch = torch.arange(count, device=table.device)[:, None, None]

    def look_up(row: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        row, place = row.long().clamp(0, TILES - 1), place.long().clamp(0, TILES - 1)
        return table[batch, row[:, None], place[None, :], levels_BHW]

    right, down = columns - left, (rows - top)[:, None]
    upper = torch.lerp(look_up(top, left), look_up(top, left + 1), right)
    lower = torch.lerp(look_up(top + 1, left), look_up(top + 1, left + 1), right)
    return torch.lerp(upper, lower, down)


def _spread(excess_T1: torch.Tensor) -> torch.Tensor:
    """What is cut off each tile's histogram, spread over all levels as OpenCV does."""
    levels = torch.arange(LEVELS, device=excess_T1.device)
    each = (excess_T1 / LEVELS).floor()
    rest = excess_T1 - each * LEVELS
    step = (LEVELS / rest.clamp_min(1)).floor()
    return each + ((levels.remainder(step) == 0) & (levels / step < rest)).float()


def split_lightness(image_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """CIE Lab of sRGB: lightness (B, 1, H, W) in 0..255, and a / 500, b / 200 (B, 2, H, W)."""
    values = (image_B3HW / 255).clamp(0, 1)
    linear = torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    matrix = torch.tensor(TO_XYZ / WHITE[:, None], dtype=torch.float32, device=values.device)
    xyz = torch.einsum("ij,bjhw->bihw", matrix, linear)
    cubic = torch.where(xyz > 0.008856, xyz.clamp_min(1e-9) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = cubic.split(1, dim=1)
    return (116 * y - 16) * 2.55, torch.cat([x - y, y - z], 1)


def join_lightness(light_B1HW: torch.Tensor, others_B2HW: torch.Tensor) -> torch.Tensor:
    """The inverse of `split_lightness`."""
    y = (light_B1HW / 2.55 + 16) / 116
    cubic = torch.cat([y + others_B2HW[:, :1], y, y - others_B2HW[:, 1:]], 1)
    xyz = torch.where(cubic > 0.206893, cubic**3, (cubic - 16 / 116) / 7.787)
    inverse = torch.tensor(
        np.linalg.inv(TO_XYZ / WHITE[:, None]), dtype=torch.float32, device=light_B1HW.device
    )
    linear = torch.einsum("ij,bjhw->bihw", inverse, xyz).clamp(0, 1)
    values = torch.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-9) ** (1 / 2.4) - 0.055
    )
    return (values * 255).clamp(0, 255)
