"""Probability maps of an image from a trained network: test-time augmentation, several scales, any
image size.

Letters: B batch, C channels, H height, W width.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nuclei.arrays import CHANNELS, Pixels, UInt8Array
from nuclei.config import Config
from nuclei.config_files import parse_config
from nuclei.data.intensity import check_channels, normalise, window_image
from nuclei.data.prepared_images import Images
from nuclei.devices import autocast_type
from nuclei.errors import UserError
from nuclei.inference.tta import Flip, average_over_flips, flips_for_scale, list_flips
from nuclei.models.activation import activate
from nuclei.models.blocks import TileOffset
from nuclei.models.factory import build_model
from nuclei.postprocessing.label_ops import mean_diameter
from nuclei.postprocessing.parameters import Parameters
from nuclei.postprocessing.rim_calibration import calibrate_rims
from nuclei.postprocessing.watershed import segment_maps
from nuclei.progress import show_progress

log = logging.getLogger(__name__)


PIXELS_PER_BATCH = 2**20
"""Pixels of a batch of flipped images; bounds the memory of a forward pass."""
LARGEST_FITTED = 2.0
"""Largest scale to which small nuclei are brought: beyond it an image has no more detail."""


class Predictor:
    """A network in evaluation mode with its config; call it with an image to get probability maps.

    Raises:
        UserError: a network whose input channels images do not have.
    """

    tile_margin = 256
    """Pixels read around a tile of a large image on each side; with these, maps of an EfficientNet
    encoder differ by at most 1 of 255 from those of the whole image."""

    def __init__(
        self, model: nn.Module, config: Config, device: torch.device, autocast: torch.dtype | None
    ) -> None:
        check_channels(config.model.in_channels)
        self.model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.config, self.device, self.autocast = config, device, autocast

    def __call__(self, image: Pixels) -> UInt8Array:
        """Foreground, border and core of an image: probability * 255, (3, H, W) uint8.

        The image is (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, of any number type. The
        config's intensity window is applied to it.

        Raises:
            UserError: an image that `intensity.window_image` refuses.
        """
        height, width = image.shape[:2]
        windowed = window_image(image, self.config.intensity)
        total = np.zeros((CHANNELS, height, width), np.float32)
        predicted: dict[float, np.ndarray] = {}
        scales = self.choose_scales(windowed, predicted)
        for index, scale in enumerate(scales):
            total += predicted[scale] if scale in predicted else self._probabilities(windowed, scale, index)
        maps = np.round(total * (255 / len(scales))).clip(0, 255).astype(np.uint8)
        level = self.config.prediction.rim_level
        return maps if level is None else calibrate_rims(maps, windowed, level)

    def choose_scales(
        self, image: UInt8Array, predicted: dict[float, np.ndarray] | None = None
    ) -> tuple[float, ...]:
        """`prediction.scales` for a windowed image (H, W, 3), adapted to the size of its nuclei.

        `prediction.fit_diameter` multiplies them by the wanted diameter over the measured one;
        `prediction.halve_scales_from` halves them where nuclei are large. The first measures nuclei
        in the map of the scale nearest to 1, the second in those of all scales up to 1. These maps,
        (3, H, W) float32 by scale, are added to `predicted`, so that they need not be made again.
        """
        prediction = self.config.prediction
        scales, limit, fitted = prediction.scales, prediction.halve_scales_from, prediction.fit_diameter
        if limit is None and fitted is None:
            return scales
        predicted = {} if predicted is None else predicted
        up_to_one = [scale for scale in scales if scale <= max(1, min(scales))]
        for scale in [nearest_to_one(scales)] if fitted else up_to_one:
            predicted[scale] = self._probabilities(image, scale, scales.index(scale))
        diameter = measure_diameter(np.mean(list(predicted.values()), axis=0))
        if fitted:
            return fit_scales(scales, fitted / diameter if diameter else 1.0)
        halvings = max(0, math.floor(math.log2(diameter / limit)) + 1) if diameter and limit else 0
        return tuple(scale / 2**halvings for scale in scales)

    def choose_flips(self, scale: float, index: int) -> list[Flip]:
        """The flips for a scale, which is the `index`-th of an image; a scale of the config keeps
        its flips.
        """
        prediction = self.config.prediction
        if not prediction.vary_flips:
            return list_flips(prediction.flips)
        if scale in prediction.scales:
            index = prediction.scales.index(scale)
        return flips_for_scale(prediction.flips, index)

    def _probabilities(self, image: UInt8Array, scale: float, index: int) -> np.ndarray:
        """Mean over the flips at one scale, (3, H, W) float32 at the image's own size."""
        height, width = image.shape[:2]
        if scale != 1:
            size = scaled_size(width, scale), scaled_size(height, scale)
            resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
            image = resized.astype(np.uint8, copy=False)
        pixels = normalise(image, self.config.intensity.normalisation, self.config.model.in_channels)
        mean_CHW = average_over_flips(
            self.forward, torch.from_numpy(pixels), self.choose_flips(scale, index)
        ).numpy()
        if scale == 1:
            return mean_CHW
        return np.stack([cv2.resize(channel, (width, height)) for channel in mean_CHW])

    @torch.inference_mode()
    def forward_tile(self, pixels_CHW: torch.Tensor, offsets: tuple[TileOffset, TileOffset]) -> torch.Tensor:
        """Probabilities (3, H, W) of a tile at `offsets` (rows, columns) of a larger image."""
        if not hasattr(self.model, "set_tile"):
            return self._forward_batch(pixels_CHW[None])[0]
        self.model.set_tile(offsets)
        try:
            return self._forward_batch(pixels_CHW[None])[0]
        finally:
            self.model.set_tile(None)

    @torch.inference_mode()
    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Probabilities (B, 3, H, W) float32 on the CPU of normalised images (B, C, H, W)."""
        batch = max(1, PIXELS_PER_BATCH // (pixels_BCHW.shape[-1] * pixels_BCHW.shape[-2]))
        return torch.cat([self._forward_batch(part) for part in pixels_BCHW.split(batch)])

    def _forward_batch(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        height, width = pixels_BCHW.shape[-2:]
        pixels_BCHW = self._pad_small(pixels_BCHW).to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            logits_BCHW = self.model(pixels_BCHW)
        return activate(logits_BCHW.float(), self.config.target)[..., :height, :width].cpu()

    def _pad_small(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Pads images that are smaller than the network takes, by repeating their edge."""
        bottom, right = (max(0, int(self.model.smallest) - size) for size in pixels_BCHW.shape[-2:])
        return (
            functional.pad(pixels_BCHW, (0, right, 0, bottom), mode="replicate")
            if bottom or right
            else pixels_BCHW
        )


def measure_diameter(probabilities_CHW: np.ndarray) -> float:
    """Mean diameter in pixels of the nuclei in probability maps (3, H, W) float32, 0 without nuclei."""
    maps = np.round(probabilities_CHW * 255).astype(np.uint8)
    return mean_diameter(segment_maps(maps, Parameters()))


def nearest_to_one(scales: Sequence[float]) -> float:
    """Scale at which nuclei are measured: at smaller ones, touching nuclei run together."""
    return min(scales, key=lambda scale: abs(math.log(scale)))


def fit_scales(scales: Sequence[float], factor: float) -> tuple[float, ...]:
    """The scales times a factor, bounded so that all are between a tenth and `LARGEST_FITTED`."""
    bounded = max(0.1 / min(scales), min(factor, LARGEST_FITTED / max(scales)))
    return tuple(round(scale * bounded, 3) for scale in scales)


def scaled_size(size: int, scale: float) -> int:
    """Pixels of a side of `size` pixels at a scale, 16 at least."""
    return max(16, round(size * scale))


def load_predictor(
    checkpoint: dict[str, Any], source: str, device: torch.device, asked: Config | None = None
) -> Predictor:
    """The checkpoint's network, ready to predict; `source` names the file in errors.

    The [prediction] of the config `asked`, where one is given, is used instead of the checkpoint's
    own.

    Raises:
        UserError: the config differs from the checkpoint's in a setting that changes the weights;
            the tensors are not those of its network.
    """
    config = parse_config(checkpoint["config"], source)
    if asked:
        changed = _changed_keys(config, asked)
        if changed:
            raise UserError(
                f"config {asked.name} differs from that of {source} in {', '.join(changed)}; with trained weights "
                "only [prediction] can change: train with this config, or use one with the same values"
            )
        config = asked
    _check_shapes(checkpoint["model"], config, source)
    model = build_model(config.model, CHANNELS, pretrained=False)
    model.load_state_dict(checkpoint["model"])
    return Predictor(model, config, device, autocast_type(config.training.precision, device))


def _check_shapes(tensors: Mapping[str, Tensor], config: Config, source: str) -> None:
    """Refuses tensors that do not fit the network of a config, which is built without memory for
    this.
    """
    with torch.device("meta"):
        expected = build_model(config.model, CHANNELS, pretrained=False).state_dict()
    for name in [*expected, *tensors]:
        wanted, found = expected.get(name), tensors.get(name)
        if wanted is None or found is None or wanted.shape != found.shape:
            shapes = [f"{tuple(tensor.shape)}" if tensor is not None else "none" for tensor in (found, wanted)]
            raise UserError(
                f"{source}: tensor {name[:100]}: shape {shapes[0]}, but the network of its config has {shapes[1]}; "
                "fetch or make the file again"
            )


def _changed_keys(config: Config, other: Config) -> list[str]:
    """Dotted keys of settings that change the weights and whose values differ."""
    one, two = config.weight_settings(), other.weight_settings()
    return [key for key in one if one[key] != two[key]]


def predict_images(
    predictor: Predictor, images: Images, ids: Sequence[str], job: str, shown: bool = True
) -> Iterator[tuple[str, UInt8Array]]:
    """Yields image id and maps (3, H, W) uint8 of every image, in sorted order; `job` names the progress."""
    for image_id in show_progress(sorted(ids), job, "images", shown=shown):
        yield image_id, predictor(images.image(image_id))
