"""Networks and losses of your own, named in a config as "my_module:MyClass".

The module is a file my_module.py in the folder where make runs, or an installed package.

A network, `model.architecture = "my_module:MyNet"`, is a `torch.nn.Module` class:

- `MyNet(in_channels=3, out_channels=3, **options)`, with `model.options` of the config as options.
- `forward` takes normalised images (B, in_channels, H, W), float32 or the autocast type, and
  returns logits (B, out_channels, H, W), before any activation. In training mode it may return a
  list of logits from full size to coarse (deep supervision).
- H and W are multiples of the attribute `multiple` (32 where absent) and at least the attribute
  `smallest` (64 where absent): other images are padded, and the logits cropped.
- The parameters of an attribute `encoder`, where there is one, get
  `training.encoder_learning_rate`.

A loss, `loss.custom = "my_module:MyLoss"`, is a class that is called as `MyLoss()(logits, target)`:
float32 logits (B, 3, H, W) and the target of `target.scheme`, same shape, to a scalar tensor. It is
added to the other terms with `loss.custom_weight`.

Both are tried on a batch of 64x64 pixels before a training begins.
"""

import copy
import difflib
import importlib
import os
import sys
from typing import Any

import torch
from torch import Tensor, nn

from nuclei.config import ModelConfig
from nuclei.errors import UserError
from nuclei.models.padding import PaddedNetwork

SIDE = 64
"""Side in pixels of the images on which a network or loss is tried."""


def is_custom(name: str) -> bool:
    """Whether a setting names a class of the user, as module:class."""
    return ":" in name


def build_custom_network(config: ModelConfig, out_channels: int) -> PaddedNetwork:
    """The user's network, after a trial on a small batch.

    Raises:
        UserError: the class cannot be found, or breaks the contract above.
    """
    key = f"model.architecture = {config.architecture!r}"
    kind = find_class(config.architecture, key)
    if not issubclass(kind, nn.Module):
        raise UserError(f"{key}: expected a subclass of torch.nn.Module, got {kind.__name__}")
    try:
        network = kind(in_channels=config.in_channels, out_channels=out_channels, **config.options)
    except TypeError as error:
        error.add_note(f"{key} is called with in_channels, out_channels and model.options as keywords")
        raise
    multiple, smallest = _side(network, "multiple", 32, key), _side(network, "smallest", SIDE, key)
    padded = PaddedNetwork(network, multiple, smallest)
    _try_network(padded, key, config.in_channels, out_channels)
    return padded


def find_class(name: str, key: str) -> type[Any]:
    """The class that "module:class" names; `key` is for error messages.

    Raises:
        UserError: no such module or class; a module of Python itself.
    """
    module_name, _, class_name = name.partition(":")
    # a name may come from a stranger's file of weights: importing some of Python's own modules acts
    # at once
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        raise UserError(f"{key}: {module_name} is a module of Python itself, expected one of your own")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise  # the module is there, but imports one that is missing
        raise UserError(
            f"{key}: no module {module_name}; put {module_name}.py into {os.getcwd()}, or install it"
        ) from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [other for other, value in vars(module).items() if isinstance(value, type)]
        close = difflib.get_close_matches(class_name, classes, n=1, cutoff=0.5) or classes
        raise UserError(f"{key}: {module_name} has no class {class_name}; it has {', '.join(close) or 'none'}")
    return found


def _side(network: nn.Module, attribute: str, default: int, key: str) -> int:
    """An optional attribute of the network that is a number of pixels."""
    value = getattr(network, attribute, default)
    if not isinstance(value, int) or not 1 <= value <= 1024:
        raise UserError(f"{key}: attribute {attribute} = {value!r}, expected a whole number from 1 to 1024")
    return value


@torch.no_grad()
def _try_network(network: PaddedNetwork, key: str, in_channels: int, out_channels: int) -> None:
    """Runs a copy of the network on a batch, without effect on its weights or on random numbers."""
    tried = copy.deepcopy(network)
    if not any(parameter.requires_grad for parameter in tried.parameters()):
        raise UserError(f"{key}: the network has no parameters to train")
    with torch.random.fork_rng(devices=[]):
        image_BCHW = torch.rand(2, in_channels, SIDE, SIDE) * 2 - 1
        for mode in ("training", "evaluation"):
            try:
                output = tried.train(mode == "training")(image_BCHW)
            except Exception as error:
                error.add_note(f"{key} was tried in {mode} mode on images {tuple(image_BCHW.shape)}")
                raise
            _check_logits(output, mode, key, (2, out_channels, SIDE, SIDE))


def _check_logits(output: Any, mode: str, key: str, expected: tuple[int, ...]) -> None:
    logits = output
    if mode == "training" and isinstance(output, list) and output:
        logits = output[0]
    if not isinstance(logits, Tensor):
        raise UserError(
            f"{key}: in {mode} mode it returned {type(logits).__name__}, expected a tensor of logits"
        )
    if tuple(logits.shape) != expected:
        raise UserError(f"{key}: in {mode} mode it returned shape {tuple(logits.shape)}, expected {expected}")
    if not logits.is_floating_point():
        raise UserError(f"{key}: in {mode} mode it returned {logits.dtype}, expected floating-point logits")
    if not logits.is_meta and not bool(logits.isfinite().all()):
        raise UserError(f"{key}: in {mode} mode it returned NaN or infinity; look at its initialisation")


def build_custom_loss(name: str) -> Any:
    """The user's loss, after a trial on a small batch.

    Raises:
        UserError: the class cannot be found, or breaks the contract above.
    """
    key = f"loss.custom = {name!r}"
    loss = find_class(name, key)()
    generator = torch.Generator().manual_seed(0)
    logits_BCHW = torch.randn(2, 3, SIDE, SIDE, generator=generator).requires_grad_()
    target_BCHW = torch.softmax(torch.randn(2, 3, SIDE, SIDE, generator=generator), 1)
    try:
        value = loss(logits_BCHW, target_BCHW)
    except Exception as error:
        error.add_note(f"{key} was tried on logits and target of shape {tuple(logits_BCHW.shape)}")
        raise
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"{key}: returned {shape}, expected a tensor of one number")
    if not bool(value.isfinite()) or not value.requires_grad:
        raise UserError(
            f"{key}: returned {value.item()} of which no gradient can be taken; expected a finite loss"
        )
    return loss
