"""An experiment's settings: defaults stand here once, `configs/<experiment>.toml` holds what differs.

What changes the result is here. What concerns the machine (device, loader workers) is a flag of a script.
"""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nuclei.errors import UserError

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _refuse_idle(section: Section, idle: bool, keys: tuple[str, ...], reason: str) -> None:
    """A key that another one puts out of action is a mistake in the config, not something to pass over."""
    changed = [key for key in keys if getattr(section, key) != type(section).model_fields[key].default]
    if idle and changed:
        raise UserError(f"{' and '.join(changed)} would do nothing: {reason}")


class ModelConfig(Section):
    """Which network. The fields below `architecture` speak of our own; `encoder` and `weights` of the library's."""

    architecture: str = "unet"
    """unet and transunet are ours; smp-<name>, as smp-unet, is one of segmentation_models_pytorch."""
    in_channels: Literal[1, 3] = 3
    width: Count = 64
    """Channels of the first level; each level below has twice as many."""
    depth: Annotated[int, Field(ge=1, le=6)] = 4
    """How often the image is halved."""
    packing: Literal[1, 2, 4] = 1
    """Pixels a side that come in, and go out, as channels: every level is so many times smaller, and cheaper."""
    upsampling: Literal["bilinear", "transposed"] = "bilinear"
    normalisation: Literal["batch", "instance", "group"] = "batch"
    skip: Literal["concat", "add", "attention"] = "concat"
    channel_attention: Literal["none", "se", "cbam"] = "none"
    attention_place: Literal["encoder", "decoder", "both"] = "both"
    residual: bool = False
    deep_supervision: bool = False
    dropout: Probability = 0.0
    transformer_layers: Count = 4
    transformer_heads: Count = 8
    transformer_patch: Count = 1
    encoder: str = "resnet34"
    weights: str = "none"
    """Encoder weights: none, imagenet (the library's download), package:<name of a Python package>, or a file."""
    decoder_channels: tuple[Count, ...] | None = None
    """Decoder widths of the library's architectures, deepest first; the library's own where absent."""
    frozen_stages: Annotated[int, Field(ge=0)] = 0
    """First stages of encoder_unet's encoder that keep their weights: they are most of its time, and generic."""

    @model_validator(mode="after")
    def places_what_is_there(self) -> Self:
        _refuse_idle(self, self.channel_attention == "none", ("attention_place",), 'channel_attention is "none"')
        return self


class TargetConfig(Section):
    """What the network is asked to predict."""

    scheme: Literal["energy", "three_class"] = "energy"
    """energy: sigmoids of foreground, touching border and core; three_class: softmax of background, body, border."""
    core: Literal["distance", "centre"] = "distance"
    """distance: how deep in its nucleus a pixel lies; centre: a Gaussian at the nucleus's centre of mass."""
    border_scale: Positive = 0.15
    """Reach of the touching border, as a share of the nucleus's equivalent diameter."""
    border_max: Positive = 4.0
    """Upper limit of that reach in pixels; the lower one is a pixel."""

    @model_validator(mode="after")
    def has_a_core(self) -> Self:
        _refuse_idle(self, self.scheme != "energy", ("core",), f'scheme is "{self.scheme}"')
        return self


class LossConfig(Section):
    """Terms of the loss and their weights; a weight of zero leaves a term out."""

    cross_entropy: Annotated[float, Field(ge=0)] = 1.0
    dice: Annotated[float, Field(ge=0)] = 1.0
    focal: Annotated[float, Field(ge=0)] = 0.0
    tversky: Annotated[float, Field(ge=0)] = 0.0
    lovasz: Annotated[float, Field(ge=0)] = 0.0
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    tversky_beta: Probability = 0.7
    """Weight of missed pixels against false ones."""
    border_weight: Annotated[float, Field(ge=0)] = 0.0
    """What a pixel of the touching border counts more, beside 1, in cross_entropy and focal."""
    small_weight: Annotated[float, Field(ge=0)] = 0.0
    """What a pixel of a nucleus of mean area counts more there; of another, more or less, inverse to its area."""

    @model_validator(mode="after")
    def has_a_term(self) -> Self:
        if not any((self.cross_entropy, self.dice, self.focal, self.tversky, self.lovasz)):
            raise UserError("all terms have weight 0; give cross_entropy, dice, focal, tversky or lovasz one")
        return self

    @model_validator(mode="after")
    def weighs_what_is_there(self) -> Self:
        _refuse_idle(self, not self.focal, ("focal_gamma",), "focal is 0")
        _refuse_idle(self, not self.tversky, ("tversky_beta",), "tversky is 0")
        _refuse_idle(
            self,
            not (self.cross_entropy or self.focal),
            ("border_weight", "small_weight"),
            "cross_entropy and focal are 0, which alone are weighed pixel by pixel",
        )
        return self


class IntensityConfig(Section):
    """How pixel values become the network's input."""

    window: Literal["none", "percentile", "level"] = "percentile"
    """percentile stretches each image so that its low and high percentile become black and white; level has the same
    limits for all images; none takes 8-bit images as they are."""
    window_level: float | None = None
    """Middle of the window `level`, in the images' own units: Hounsfield units for CT."""
    window_width: Positive | None = None
    """Distance from black to white in the window `level`."""
    low_percentile: Annotated[float, Field(ge=0, lt=50)] = 0.1
    high_percentile: Annotated[float, Field(gt=50, le=100)] = 99.9
    normalisation: Literal["half", "imagenet", "z_score"] = "half"
    """half: 0..255 to -1..1; imagenet: by the mean and deviation of ImageNet; z_score: by those of what the network
    is given, a crop in training and the whole image in prediction."""

    @model_validator(mode="after")
    def has_its_window(self) -> Self:
        given = {self.window_level is not None, self.window_width is not None}
        if self.window == "level" and given != {True}:
            raise UserError('window "level" needs window_level and window_width, such as 40 and 400 for soft tissue')
        window = f'window is "{self.window}"'
        _refuse_idle(self, self.window != "level", ("window_level", "window_width"), window)
        _refuse_idle(self, self.window != "percentile", ("low_percentile", "high_percentile"), window)
        return self


class AugmentationConfig(Section):
    preset: Literal["nuclei", "laboratories", "medical", "none"] = "nuclei"
    scales: tuple[Positive, Positive] | None = None
    """Zooms between which a crop is drawn; the preset's own where absent."""
    copy_paste: Probability = 0.0
    """Chance that nuclei of the image itself are pasted again at other places of the crop."""


class TrainingConfig(Section):
    start: str = ""
    """Experiment whose weights of the same fold are trained further; make trains it first."""
    pseudo_labels: str = ""
    """Experiment whose network of the same fold labels the test images, to train on them too; make tunes it first. The
    competition's rules allowed it. Off where empty, so that scores are of networks that saw no test image."""
    external: dict[str, Positive] = {}
    """External data sets to train on beside the competition's images, by name, each with a sampling factor."""
    by_source: bool = False
    """Balance sources (see `data.image_sources`; an external set is one) instead of modalities."""
    steps: Count = 2000
    """Optimiser steps of a fold."""
    steps_per_epoch: Count = 100
    """The stretch between two checkpoints, not a pass over the images: rare modalities are drawn more often."""
    batch_size: Count = 16
    images: Count | None = None
    """Train on so many images of the fold alone, drawn by the seed and shared out over the modalities; all if absent.
    What is drawn for a smaller number lies within what is drawn for a larger one."""
    crop: Annotated[int, Field(ge=32, multiple_of=32)] = 256
    """Side of the square crop in pixels."""
    learning_rate: Positive = 1e-3
    encoder_learning_rate: Positive | None = None
    """Of a pretrained encoder, where it should differ."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    warmup: Probability = 0.05
    """Share of the steps in which the rate rises; a cosine takes it to zero over the others."""
    gradient_clip: Positive = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    """Decay of the average of weights that is validated and kept; 0 keeps the last weights themselves."""
    balance: Probability = 0.5
    """A modality of n images is drawn as often as n ** (1 - balance): 0 draws images alike, 1 modalities."""
    validate_every: Count = 10
    """Epochs between validations on the held-out fold; the last epoch is always validated."""
    validation_images: Count | None = 32
    """Images of the held-out fold that the validations during training look at; all where absent."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """auto: bf16-mixed where the device computes faster with it, else 32-true."""
    seed: int = 0

    @property
    def batch(self) -> str:
        """What a step sees, in words: `8 crops of 128 pixels`."""
        return f"{self.batch_size} crops of {self.crop} pixels"


class PredictionConfig(Section):
    flips: Literal[1, 2, 4, 8] = 8
    """Test-time averaging over 1 (none), 2 (mirror), 4 (both mirrors) or 8 (and the transpose) views."""
    scales: tuple[Positive, ...] = (1.0,)
    """Zooms whose maps are averaged."""
    vary_flips: bool = False
    """Deal the eight views out over the zooms: each looks at `flips` others, instead of all at the same."""
    halve_scales_from: Positive | None = None
    """Diameter of an image's nuclei, in pixels, from which on all zooms are halved, and halved again from twice that:
    a network that saw few such large nuclei finds them where they look smaller. Never where absent."""

    @model_validator(mode="after")
    def deals_to_several(self) -> Self:
        _refuse_idle(
            self, len(self.scales) == 1 or self.flips == 8, ("vary_flips",), "one zoom, or all eight views in each"
        )
        return self


WEIGHTLESS: dict[str, Any] = {
    "name": True,
    "prediction": True,
    "training": {"validate_every": True, "validation_images": True},
}
"""Settings that do not change the trained weights, in the form of pydantic's `exclude`."""


class Config(Section):
    """One experiment. `name` is the file's name without its ending."""

    name: str
    model: ModelConfig = ModelConfig()
    target: TargetConfig = TargetConfig()
    loss: LossConfig = LossConfig()
    intensity: IntensityConfig = IntensityConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    training: TrainingConfig = TrainingConfig()
    prediction: PredictionConfig = PredictionConfig()

    def weight_settings(self) -> dict[str, str]:
        """The settings that change the trained weights: values as JSON by dotted key."""
        settings: dict[str, str] = {}
        for section, table in self.model_dump(mode="json", exclude=WEIGHTLESS).items():
            settings |= {f"{section}.{key}": json.dumps(value) for key, value in table.items()}
        return settings
