"""Training images, label maps and core maps in device memory, sampled in batches.

All pixels of all images lie one after the other in flat buffers, so images of different sizes are
sampled together. Letters: B batch, C channels, H height, W width, P pixels of all images.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from nuclei.arrays import Float32Array, Float64Array, Int64Array, LabelMap, UInt8Array
from nuclei.data.targets import centre_energy, rims

QUARTERS = ((-0.25, -0.25), (-0.25, 0.25), (0.25, -0.25), (0.25, 0.25))
"""Places in an output pixel whose mean reduces an image without aliasing, down to half its size."""


class DeviceImages:
    """Images (H, W, 3) uint8 and label maps on a device. `core` is the config's `target.core`."""

    def __init__(
        self,
        images: Sequence[UInt8Array],
        label_maps: Sequence[npt.NDArray[Any]],
        core: str,
        device: torch.device,
    ) -> None:
        packed, tables = [], []
        for image, label_map in zip(images, label_maps, strict=True):
            energy, largest = measure_core(label_map.astype(np.int32), core)
            packed.append(np.concatenate([image, energy[..., None]], axis=2).reshape(-1, 4))
            tables.append(largest)
        self.device, self.core = device, core
        sizes: list[tuple[int, ...]] = [label_map.shape for label_map in label_maps]
        self.sizes = np.array(sizes)
        """Height and width of each image, (N, 2)."""
        self.colours_P4 = torch.from_numpy(np.concatenate(packed)).to(device)
        """Red, green, blue and the core, uint8."""
        labels = np.concatenate([label_map.ravel() for label_map in label_maps])
        self.labels_P = torch.from_numpy(labels.astype(np.int32)).to(device)
        self.largest = torch.from_numpy(np.concatenate(tables)).to(device)
        """Largest distance to the rim in each nucleus of each image, one image after the other."""
        self.label_count = max(map(len, tables))
        """Largest label of all images, plus one."""
        starts = np.cumsum([0, *(height * width for height, width in sizes)])[:-1]
        first_labels = np.cumsum([0, *map(len, tables)])[:-1]
        rows = np.stack([starts, self.sizes[:, 0], self.sizes[:, 1], first_labels])
        self.table_4N = torch.from_numpy(rows.astype(np.int64)).to(device)

    def sample(
        self,
        numbers: Int64Array,
        rows_BHW: torch.Tensor,
        columns_BHW: torch.Tensor,
        steps: Float64Array,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Samples colours (B, 3, H, W) float32 in 0..255, labels (B, H, W) int64 and core maps.

        Rows and columns are places in image `numbers` (B,) in pixels; beyond an image it is
        mirrored. `steps` (B,) are the image's pixels from one sample to the next. Labels are those
        of the nearest pixel. With a step above 1 each sample is the mean of four.
        """
        table_4B = self.table_4N[:, self._to_device(numbers)]
        far = self._reach_far(numbers, steps, rows_BHW.shape[1])
        nearest = _Pixels(table_4B, far)
        labels_BHW = self.labels_P[
            nearest.row((rows_BHW + 0.5).floor()) + nearest.column((columns_BHW + 0.5).floor())
        ].long()
        sampled_BHW4 = torch.empty((*rows_BHW.shape, 4), device=self.device)
        for chosen, quarters in ((steps <= 1, ((0.0, 0.0),)), (steps > 1, QUARTERS)):
            if not chosen.any():
                continue
            places = self._to_device(np.flatnonzero(chosen))
            step_B11 = self._to_device(steps[chosen].astype(np.float32))[:, None, None]
            pixels, rows, columns = _Pixels(table_4B[:, places], far), rows_BHW[places], columns_BHW[places]
            total = torch.zeros((*rows.shape, 4), device=self.device)
            for down, right in quarters:
                total += self._interpolate(pixels, rows + down * step_B11, columns + right * step_B11)
            sampled_BHW4[places] = total / len(quarters)
        colours_B3HW = sampled_BHW4[..., :3].permute(0, 3, 1, 2).contiguous()
        scale_B11 = self._to_device((1 / steps).astype(np.float32))[:, None, None]
        core_BHW = self._core(sampled_BHW4[..., 3] / 255, labels_BHW, table_4B[3], scale_B11)
        return colours_B3HW, labels_BHW, core_BHW

    def _reach_far(self, numbers: Int64Array, steps: Float64Array, side: int) -> bool:
        """Whether a crop may show more than an image and its mirror images beside it."""
        # half the diagonal of a rotated crop, and an elastic deformation
        reach = steps * (0.71 * side + 16)
        return bool((reach >= self.sizes[numbers].min(axis=1)).any())

    def _interpolate(self, pixels: "_Pixels", rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Colours and core between four pixels, (B, H, W, 4) float32."""
        top, left = rows.floor(), columns.floor()
        down, right = (rows - top)[..., None], (columns - left)[..., None]
        upper, lower = pixels.row(top), pixels.row(top + 1)
        before, after = pixels.column(left), pixels.column(left + 1)
        lines = [
            torch.lerp(self.colours_P4[row + before].float(), self.colours_P4[row + after].float(), right)
            for row in (upper, lower)
        ]
        return torch.lerp(lines[0], lines[1], down)

    def _core(
        self, sampled: torch.Tensor, labels: torch.Tensor, first_label_B: torch.Tensor, scale_B11: torch.Tensor
    ) -> torch.Tensor:
        """The core target at the crop's scale: of a distance the rim's own pixels count as well."""
        if self.core == "centre":
            return torch.where(labels > 0, sampled.clamp_min(torch.finfo(torch.float32).tiny), 0.0)
        largest = self.largest[first_label_B[:, None, None] + labels]
        # a rim pixel's middle is half a pixel inside, at any scale
        heights = scale_B11 * (sampled * largest + 0.5) + 0.5
        return torch.where(labels > 0, heights / (scale_B11 * (largest + 0.5) + 0.5), 0.0)

    def _to_device(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)


class _Pixels:
    """Indices of each image's pixels in the flat buffers: row plus column is the index."""

    def __init__(self, table_4B: torch.Tensor, far: bool) -> None:
        self.start, self.height, self.width = (row[:, None, None] for row in table_4B[:3])
        self.far = far

    def row(self, rows_BHW: torch.Tensor) -> torch.Tensor:
        """Index of the first pixel of rows given by whole numbers; mirrored beyond the image."""
        first: torch.Tensor = self.start + mirror(rows_BHW.long(), self.height, self.far) * self.width
        return first

    def column(self, columns_BHW: torch.Tensor) -> torch.Tensor:
        return mirror(columns_BHW.long(), self.width, self.far)


def mirror(places: torch.Tensor, length: torch.Tensor, far: bool) -> torch.Tensor:
    """Reflection padding of integer positions into 0..length - 1; repeated if `far`."""
    if far:
        places = places.remainder(2 * length)
    places = torch.where(places < 0, -1 - places, places)
    mirrored: torch.Tensor = torch.minimum(places, 2 * length - 1 - places)
    return mirrored


def measure_core(label_map: LabelMap, core: str) -> tuple[UInt8Array, Float32Array]:
    """The core of each pixel as uint8 in 0..255, and the largest distance to the rim by label.

    For "distance" the core is the distance over the largest in the nucleus, else `centre_energy`.
    """
    count = int(label_map.max()) + 1
    if core == "centre":
        return np.round(centre_energy(label_map) * 255).astype(np.uint8), np.zeros(count, np.float32)
    distance = np.zeros(label_map.shape, np.float32)
    if label_map.any():
        inner = (~rims(label_map)).astype(np.uint8)
        distance += np.where(label_map > 0, cv2.distanceTransform(inner, cv2.DIST_L2, 5), 0)
    largest = np.zeros(count, np.float32)
    np.maximum.at(largest, label_map.ravel(), distance.ravel())
    relative = distance / np.maximum(largest, 1e-6)[label_map]
    return np.round(relative * 255).astype(np.uint8), largest
