"""Training targets of a batch of label maps on a device: as `data.targets`, pixel by pixel.

Foreground, touching border and pixel weights are computed from the sampled label maps, so they are
the same as those of `data.targets`. The core is sampled, see `device_images`.
"""

from collections.abc import Iterable

import numpy as np
import torch

from nuclei.config import Config
from nuclei.data.targets import LARGEST_GAIN, disc


def make_targets(
    labels_BHW: torch.Tensor, core_BHW: torch.Tensor, label_count: int, config: Config
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Target (B, 3, H, W) float32 of the config's scheme; pixel weights (B, 1, H, W) or None."""
    target, loss = config.target, config.loss
    areas_BL = count_pixels(labels_BHW, label_count)
    border_BHW = find_borders(labels_BHW, areas_BL, target.border_scale, target.border_max)
    inside_BHW = labels_BHW > 0
    if target.scheme == "energy":
        channels = [inside_BHW, border_BHW, core_BHW]
    else:
        body_BHW = inside_BHW & ~border_BHW
        channels = [~(body_BHW | border_BHW), body_BHW, border_BHW]
    target_BCHW = torch.stack([channel.float() for channel in channels], dim=1)
    if not (loss.border_weight or loss.small_weight):
        return target_BCHW, None
    weights_BHW = 1 + loss.border_weight * border_BHW.float()
    if loss.small_weight:
        weights_BHW = weights_BHW + loss.small_weight * _gains(areas_BL).gather(
            1, labels_BHW.flatten(1)
        ).reshape(labels_BHW.shape)
    return target_BCHW, weights_BHW[:, None]


def count_pixels(labels_BHW: torch.Tensor, label_count: int) -> torch.Tensor:
    """Area of each nucleus in each crop, (B, L) float32; 0 for the background."""
    areas_BL = torch.zeros((len(labels_BHW), label_count), device=labels_BHW.device)
    ones = torch.ones(1, device=labels_BHW.device).expand(labels_BHW.flatten(1).shape)
    areas_BL.scatter_add_(1, labels_BHW.flatten(1), ones)
    areas_BL[:, 0] = 0
    return areas_BL


def _gains(areas_BL: torch.Tensor) -> torch.Tensor:
    """Mean area of the crop's nuclei over each one's area, at most LARGEST_GAIN; 0 if absent."""
    present = areas_BL > 0
    mean_B1 = areas_BL.sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp_min(1)
    return torch.where(present, (mean_B1 / areas_BL.clamp_min(1)).clamp_max(LARGEST_GAIN), 0.0)


def find_borders(
    labels_BHW: torch.Tensor, areas_BL: torch.Tensor, scale: float, largest_reach: float
) -> torch.Tensor:
    """Pixels within reach of two nuclei, (B, H, W) bool; see `targets.touching_border`."""
    most = max(1, round(largest_reach))
    reaches_BL = (scale * (4 / torch.pi * areas_BL).sqrt()).round().clamp(1, most) * (areas_BL > 0)
    reach_BHW = reaches_BL.gather(1, labels_BHW.flatten(1)).reshape(labels_BHW.shape)
    radii = range(1, most + 1)
    highest = labels_BHW.float()
    lowest = torch.where(labels_BHW > 0, highest, torch.inf)
    widest, negated, near = (dilate(each, radii) for each in (highest, -lowest, reach_BHW))
    # the largest reach of the crop says how far a nucleus is looked for
    largest_B11 = reaches_BL.amax(1)[:, None, None]
    reach_map = torch.zeros_like(reach_BHW)
    for radius in radii:
        reach_map = torch.where(largest_B11 == radius, near[radius], reach_map)
    border = torch.zeros_like(labels_BHW, dtype=torch.bool)
    for radius in radii:
        # two nuclei are near where the largest label around differs from the smallest
        border |= (widest[radius] > -negated[radius]) & (reach_map == radius)
    return border


def dilate(maps_BHW: torch.Tensor, radii: Iterable[int]) -> dict[int, torch.Tensor]:
    """Largest value of `targets.disc` of each radius around each pixel, (B, H, W) by radius."""
    half_widths = {radius: disc(radius).sum(axis=1, dtype=np.int64)[radius:] // 2 for radius in radii}
    pooled = {0: maps_BHW}
    for half in range(1, max(int(halves[0]) for halves in half_widths.values()) + 1):
        pooled[half] = _raise_by(pooled[half - 1].clone(), maps_BHW, half, 2)
    dilated = {}
    for radius, halves in half_widths.items():
        dilated[radius] = pooled[int(halves[0])].clone()
        for distance, half in enumerate(halves[1:].tolist(), 1):
            _raise_by(dilated[radius], pooled[half], distance, 1)
    return dilated


def _raise_by(largest_BHW: torch.Tensor, maps_BHW: torch.Tensor, distance: int, axis: int) -> torch.Tensor:
    """Raises `largest` in place to the maps shifted by a distance both ways along an axis."""
    count = maps_BHW.shape[axis] - distance
    if count > 0:
        low, high = largest_BHW.narrow(axis, 0, count), largest_BHW.narrow(axis, distance, count)
        torch.maximum(high, maps_BHW.narrow(axis, 0, count), out=high)
        torch.maximum(low, maps_BHW.narrow(axis, distance, count), out=low)
    return largest_BHW
