"""Maps of an image from a trained network: test-time averaging, zooms, images of any size.

Letters: B batch, C channels, H height, W width.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from nuclei.arrays import CHANNELS, Pixels, UInt8Array
from nuclei.config import Config
from nuclei.config_files import parse_config
from nuclei.data.intensity import normalise, window_image
from nuclei.data.prepared_images import Images
from nuclei.devices import autocast_type
from nuclei.errors import UserError
from nuclei.inference.tta import View, average_views, deal_views, list_views
from nuclei.models.activation import activate
from nuclei.models.blocks import Span
from nuclei.models.factory import build_model
from nuclei.postprocessing.label_ops import mean_diameter
from nuclei.postprocessing.parameters import Parameters
from nuclei.postprocessing.watershed import segment_maps

log = logging.getLogger(__name__)


PIXELS_AT_ONCE = 2**20
"""Pixels of a batch of views; bounds the memory that a forward pass takes."""


class Predictor:
    """A network in evaluation mode with the settings it was trained with; call it with an image to get its maps."""

    def __init__(self, model: nn.Module, config: Config, device: torch.device, autocast: torch.dtype | None) -> None:
        self.model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.config, self.device, self.autocast = config, device, autocast

    def __call__(self, image: Pixels) -> UInt8Array:
        """Foreground, border and core of an image: probability * 255, (3, H, W) uint8.

        The image is (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, of any number type, and is put into the
        window of the config that the network was trained with.

        Raises:
            UserError: an image that `intensity.window_image` refuses.
        """
        height, width = image.shape[:2]
        windowed = window_image(image, self.config.intensity)
        total = np.zeros((CHANNELS, height, width), np.float32)
        seen: dict[float, np.ndarray] = {}
        scales = self.choose_scales(windowed, seen)
        for place, scale in enumerate(scales):
            total += seen[scale] if scale in seen else self._probabilities(windowed, scale, place)
        return np.round(total * (255 / len(scales))).clip(0, 255).astype(np.uint8)

    def choose_scales(self, image: UInt8Array, seen: dict[float, np.ndarray] | None = None) -> tuple[float, ...]:
        """The zooms of `prediction.scales`, halved as often as the nuclei in the windowed image (H, W, 3) are large.

        They are measured in the maps of the zooms up to 1, which `seen` takes up: (3, H, W) float32 by zoom.
        """
        scales, limit = self.config.prediction.scales, self.config.prediction.halve_scales_from
        if limit is None:
            return scales
        seen = {} if seen is None else seen
        for place, scale in enumerate(scales):
            if scale <= max(1, min(scales)):
                seen[scale] = self._probabilities(image, scale, place)
        mean_CHW = np.mean(list(seen.values()), axis=0)
        diameter = mean_diameter(segment_maps(np.round(mean_CHW * 255).astype(np.uint8), Parameters()))
        halvings = max(0, math.floor(math.log2(diameter / limit)) + 1) if diameter else 0
        return tuple(scale / 2**halvings for scale in scales)

    def choose_views(self, scale: float, place: int) -> list[View]:
        """The views of a zoom, which is at `place` of those of an image; once dealt, a zoom keeps its views."""
        prediction = self.config.prediction
        if not prediction.vary_flips:
            return list_views(prediction.flips)
        return deal_views(prediction.flips, prediction.scales.index(scale) if scale in prediction.scales else place)

    def _probabilities(self, image: UInt8Array, scale: float, place: int) -> np.ndarray:
        """Mean over the views of one zoom, (3, H, W) float32 at the image's own size."""
        height, width = image.shape[:2]
        if scale != 1:
            size = zoom_size(width, scale), zoom_size(height, scale)
            resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
            image = resized.astype(np.uint8, copy=False)
        pixels = normalise(image, self.config.intensity.normalisation, self.config.model.in_channels)
        mean_CHW = average_views(self.forward, torch.from_numpy(pixels), self.choose_views(scale, place)).numpy()
        if scale == 1:
            return mean_CHW
        return np.stack([cv2.resize(channel, (width, height)) for channel in mean_CHW])

    @torch.inference_mode()
    def forward_tile(self, pixels_CHW: torch.Tensor, place: tuple[Span, Span]) -> torch.Tensor:
        """Probabilities (3, H, W) of a tile that lies at `place` (rows, columns) of a larger image."""
        if not hasattr(self.model, "set_place"):
            return self._forward_batch(pixels_CHW[None])[0]
        self.model.set_place(place)
        try:
            return self._forward_batch(pixels_CHW[None])[0]
        finally:
            self.model.set_place(None)

    @torch.inference_mode()
    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        batch = max(1, PIXELS_AT_ONCE // (pixels_BCHW.shape[-1] * pixels_BCHW.shape[-2]))
        return torch.cat([self._forward_batch(part) for part in pixels_BCHW.split(batch)])

    def _forward_batch(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        height, width = pixels_BCHW.shape[-2:]
        pixels_BCHW = self._pad_small(pixels_BCHW).to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            logits_BCHW = self.model(pixels_BCHW)
        return activate(logits_BCHW.float(), self.config.target)[..., :height, :width].cpu()

    def _pad_small(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """The pixels with their edge repeated where an image is smaller than the network takes."""
        bottom, right = (max(0, int(self.model.smallest) - size) for size in pixels_BCHW.shape[-2:])
        return functional.pad(pixels_BCHW, (0, right, 0, bottom), mode="replicate") if bottom or right else pixels_BCHW


def zoom_size(size: int, scale: float) -> int:
    """Pixels of a zoomed side."""
    return max(16, round(size * scale))


def load_predictor(
    checkpoint: dict[str, Any], source: str, device: torch.device, asked: Config | None = None
) -> Predictor:
    """The checkpoint's network, ready to predict; `source` names the file in errors.

    The [prediction] of the config `asked` counts instead of the checkpoint's own, where one is given.

    Raises:
        UserError: a config that differs from the checkpoint's in more than [prediction] and its name.
    """
    config = parse_config(checkpoint["config"], source)
    if asked:
        changed = _changed_keys(config, asked)
        if changed:
            raise UserError(
                f"config {asked.name} differs from that of {source} in {', '.join(changed)}; weights that are there "
                "can change in [prediction] alone: train them with this config, or give one with the same values"
            )
        config = asked
    model = build_model(config.model, CHANNELS, pretrained=False)
    model.load_state_dict(checkpoint["model"])
    return Predictor(model, config, device, autocast_type(config.training.precision, device))


def _changed_keys(config: Config, other: Config) -> list[str]:
    """Dotted keys of settings that change the weights and whose values differ."""
    one, two = config.weight_settings(), other.weight_settings()
    return [key for key in one if one[key] != two[key]]


def predict_images(predictor: Predictor, images: Images, ids: Sequence[str]) -> Iterator[tuple[str, UInt8Array]]:
    """Image id and maps of every image, in sorted order."""
    from tqdm import tqdm

    for image_id in tqdm(sorted(ids), desc="predict", unit="image", mininterval=1):
        yield image_id, predictor(images.image(image_id))
