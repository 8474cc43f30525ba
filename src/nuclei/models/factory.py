"""Networks from image to logits, all behind `build_model`: our UNet and TransUNet, and the library's architectures.

Every network takes images (B, C, H, W), float, and returns logits (B, out_channels, H, W) for any H and W from about
32 up, odd ones included. README.md beside this file shows the UNet level by level and lists the switches.
"""

from typing import Any

from torch import nn

from nuclei.config import ModelConfig, TrainingConfig
from nuclei.errors import UserError
from nuclei.models.encoder_unet import ENCODER_UNET

OURS = ("unet", "transunet")
LIBRARY_KEYS = ("encoder", "weights", "decoder_channels")
ENCODER_KEYS = (*LIBRARY_KEYS, "frozen_stages")
DECODER_KEYS = ("normalisation", "residual")
TRANSFORMER_KEYS = ("transformer_layers", "transformer_heads", "transformer_patch")


def build_model(config: ModelConfig, out_channels: int, pretrained: bool = True) -> nn.Module:
    """The network that the config describes.

    With deep supervision, in training mode, its answer is a list of logits from full size to coarse; else one tensor.
    With `pretrained=False` the encoder weights that `config.weights` names are not fetched: the caller loads a whole
    checkpoint next, and needs neither connection nor package for it.

    Raises:
        UserError: an unknown architecture, encoder or weights, or a key that means nothing to this architecture.
    """
    _check_keys(config)
    # Imported where they are needed, since the library behind the baselines takes seconds.
    if config.architecture == "unet":
        from nuclei.models.unet import UNet

        return UNet(config, out_channels)
    if config.architecture == "transunet":
        from nuclei.models.transunet import TransUNet

        return TransUNet(config, out_channels)
    from nuclei.models.smp import Baseline

    return Baseline(config, out_channels, pretrained)


def parameter_count(model: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def parameter_groups(model: nn.Module, training: TrainingConfig) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser, each with its `params`, `lr` and `weight_decay`.

    The encoder of a library's architecture has `training.encoder_learning_rate` where that is set. Biases and the
    scales of normalisations (all that has one axis) do not decay.

    Raises:
        UserError: an encoder's learning rate for a network that has no encoder of its own.
    """
    encoder_rate = training.encoder_learning_rate
    encoder: set[int] = set()
    if encoder_rate is not None:
        list_encoder = getattr(model, "encoder_parameters", None)
        if list_encoder is None:
            raise UserError(
                f"training.encoder_learning_rate = {encoder_rate}, but {type(model).__name__} has no separate encoder; "
                "delete the key or take an smp-... architecture"
            )
        encoder = {id(parameter) for parameter in list_encoder()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        rate = encoder_rate if encoder_rate is not None and id(parameter) in encoder else training.learning_rate
        decay = training.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


def _check_keys(config: ModelConfig) -> None:
    """A key that this architecture would not look at is a mistake in the config, not something to pass over."""
    everyone = ("architecture", "in_channels")
    foreign: tuple[str, ...] = ENCODER_KEYS
    if config.architecture == "unet":
        foreign += TRANSFORMER_KEYS
    elif config.architecture not in OURS:
        own = (*ENCODER_KEYS, *DECODER_KEYS) if config.architecture == ENCODER_UNET else LIBRARY_KEYS
        foreign = tuple(key for key in ModelConfig.model_fields if key not in everyone + own)
    defaults = ModelConfig()
    for key in foreign:
        value = getattr(config, key)
        if value != getattr(defaults, key):
            raise UserError(f"model.{key} = {value!r} means nothing to {config.architecture}; delete the key")
