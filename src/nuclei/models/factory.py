"""`build_model` makes the network of a config: our UNet or TransUNet, a library's, or your own.

Every network takes images (B, C, H, W), float, and returns logits (B, out_channels, H, W), for any
H and W from about 32 up, odd ones included. README.md beside this file shows the UNet and lists the
settings.
"""

from typing import Any

from torch import nn

from nuclei.config import ModelConfig, TrainingConfig
from nuclei.errors import UserError
from nuclei.models.custom import build_custom_network, is_custom
from nuclei.models.encoder_unet import ENCODER_UNET

OURS = ("unet", "transunet")
LIBRARY_KEYS = ("encoder", "weights", "decoder_channels")
ENCODER_KEYS = (*LIBRARY_KEYS, "frozen_stages")
DECODER_KEYS = ("normalisation", "residual")
TRANSFORMER_KEYS = ("transformer_layers", "transformer_heads", "transformer_patch")
CUSTOM_KEYS = ("options",)


def build_model(config: ModelConfig, out_channels: int, pretrained: bool = True) -> nn.Module:
    """The network of a config.

    With deep supervision, in training mode, it returns a list of logits from full size to coarse,
    else one tensor. With `pretrained=False` the encoder weights that `config.weights` names are not
    loaded: the caller loads a whole checkpoint next, which needs neither a connection nor a
    package.

    Raises:
        UserError: an unknown architecture, encoder or weights, or a key that the architecture does
            not use.
    """
    _check_keys(config)
    if is_custom(config.architecture):
        return build_custom_network(config, out_channels)
    if config.architecture == "unet":
        from nuclei.models.unet_variants import ConfigurableUNet

        return ConfigurableUNet(config, out_channels)
    if config.architecture == "transunet":
        from nuclei.models.transunet import TransUNet

        return TransUNet(config, out_channels)
    from nuclei.models.smp import build_smp

    return build_smp(config, out_channels, pretrained)


def parameter_count(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def parameter_groups(model: nn.Module, training: TrainingConfig) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer, each with its `params`, `lr` and `weight_decay`.

    A pretrained encoder gets `training.encoder_learning_rate` where that is set. Biases and the
    scales of normalisations (tensors with one axis) have no weight decay.

    Raises:
        UserError: an encoder learning rate for a network without a separate encoder.
    """
    encoder_rate = training.encoder_learning_rate
    encoder: set[int] = set()
    if encoder_rate is not None:
        list_encoder = getattr(model, "encoder_parameters", list)
        encoder = {id(parameter) for parameter in list_encoder()}
        if not encoder:
            raise UserError(
                f"training.encoder_learning_rate = {encoder_rate}, but {type(model).__name__} has "
                "no separate encoder; delete the key or use an smp-... architecture"
            )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        rate = encoder_rate if encoder_rate is not None and id(parameter) in encoder else training.learning_rate
        decay = training.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


def _check_keys(config: ModelConfig) -> None:
    """Refuses keys that this architecture does not use: they are a mistake in the config."""
    foreign: tuple[str, ...] = (*ENCODER_KEYS, *CUSTOM_KEYS)
    if config.architecture == "unet":
        foreign += TRANSFORMER_KEYS
    elif config.architecture not in OURS:
        own: tuple[str, ...] = LIBRARY_KEYS
        if config.architecture == ENCODER_UNET:
            own = (*ENCODER_KEYS, *DECODER_KEYS)
        elif is_custom(config.architecture):
            own = CUSTOM_KEYS
        used = ("architecture", "in_channels", *own)
        foreign = tuple(key for key in ModelConfig.model_fields if key not in used)
    defaults = ModelConfig()
    for key in foreign:
        value = getattr(config, key)
        if value != getattr(defaults, key):
            raise UserError(f"model.{key} = {value!r} means nothing to {config.architecture}; delete the key")
