"""Hyperparameters of an experiment: defaults here, what differs in `configs/<experiment>.toml`.

Settings change the result. Choices that concern the machine (device, loader workers) are flags of
the scripts.
"""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from nuclei.errors import UserError
from nuclei.io.names import Name, check_name

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Scale = Annotated[float, Field(ge=1 / 16, le=16)]
OptionalName = Annotated[str, AfterValidator(lambda name: name and check_name(name))]
# The upper bounds are far above useful values. They refuse a config that would exhaust the memory.
Channels = Annotated[int, Field(ge=1, le=1024)]
Layers = Annotated[int, Field(ge=1, le=64)]
MAX_BOTTLENECK = 8192
"""Most channels at the bottleneck of a UNet: one such convolution takes 2.4 GB."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _refuse_unused(section: Section, unused: bool, keys: tuple[str, ...], reason: str) -> None:
    """Refuses values for `keys` where another setting makes them unused: it is a mistake."""
    fields = type(section).model_fields
    changed = [key for key in keys if getattr(section, key) != fields[key].default]
    if unused and changed:
        raise UserError(f"{' and '.join(changed)} would have no effect: {reason}")


class ModelConfig(Section):
    """Network. Fields from `in_channels` to `transformer_patch` are for our own architectures.

    `encoder`, `weights` and `decoder_channels` are for those with a pretrained encoder.
    """

    architecture: str = "unet"
    """unet, transunet or encoder_unet; smp-<name>, such as smp-unet: segmentation_models_pytorch; a
    class of your own as my_module:MyNet, see `models.custom`."""
    options: dict[str, bool | int | float | str] = {}
    """Keyword arguments of a class of your own."""
    in_channels: Channels = 3
    """Channels of the input. Images are read as 3 (RGB) or 1 (their mean)."""
    width: Channels = 64
    """Channels of the first level; each level below has twice as many."""
    depth: Annotated[int, Field(ge=1, le=6)] = 4
    """Number of times the image is halved."""
    packing: Literal[1, 2, 4] = 1
    """Pixel unshuffle factor: blocks of so many pixels a side become channels before the network
    and pixels again after it, so that every level is smaller and faster."""
    upsampling: Literal["bilinear", "transposed"] = "bilinear"
    normalisation: Literal["batch", "instance", "group"] = "batch"
    skip: Literal["concat", "add", "attention"] = "concat"
    channel_attention: Literal["none", "se", "cbam"] = "none"
    attention_place: Literal["encoder", "decoder", "both"] = "both"
    residual: bool = False
    deep_supervision: bool = False
    dropout: Probability = 0.0
    transformer_layers: Layers = 4
    transformer_heads: Layers = 8
    transformer_patch: Layers = 1
    encoder: str = "resnet34"
    weights: str = "none"
    """Encoder weights: none, imagenet (downloaded by the library), package:<name of a Python
    package>, or a file."""
    decoder_channels: Annotated[tuple[Channels, ...], Field(max_length=8)] | None = None
    """Decoder widths, deepest first; by default those of the library."""
    frozen_stages: Annotated[int, Field(ge=0, le=64)] = 0
    """First stages of encoder_unet's encoder that are not trained. They take most of its time and
    hold generic features."""

    @model_validator(mode="after")
    def fits_in_memory(self) -> Self:
        bottleneck = self.width * 2**self.depth
        if bottleneck > MAX_BOTTLENECK:
            raise UserError(
                f"width {self.width} at depth {self.depth} makes {bottleneck} channels at the "
                f"bottleneck, expected at most {MAX_BOTTLENECK}; lower width or depth"
            )
        return self

    @model_validator(mode="after")
    def uses_its_attention_place(self) -> Self:
        reason = 'channel_attention is "none"'
        _refuse_unused(self, self.channel_attention == "none", ("attention_place",), reason)
        return self


class TargetConfig(Section):
    """What the network predicts."""

    scheme: Literal["energy", "three_class"] = "energy"
    """energy: sigmoids of foreground, touching border and core; three_class: softmax of background,
    body and border."""
    core: Literal["distance", "centre"] = "distance"
    """distance: normalised distance to the rim of the nucleus; centre: Gaussian at its centre of
    mass."""
    border_scale: Positive = 0.15
    """Reach of the touching border as a fraction of the nucleus's equivalent diameter."""
    border_max: Annotated[float, Field(gt=0, le=64)] = 4.0
    """Largest reach of the touching border in pixels; the smallest is one pixel."""

    @model_validator(mode="after")
    def uses_its_core(self) -> Self:
        _refuse_unused(self, self.scheme != "energy", ("core",), f'scheme is "{self.scheme}"')
        return self


class LossConfig(Section):
    """Terms of the loss and their weights; a term of weight 0 is left out."""

    cross_entropy: NonNegative = 1.0
    dice: NonNegative = 1.0
    focal: NonNegative = 0.0
    tversky: NonNegative = 0.0
    lovasz: NonNegative = 0.0
    custom: str = ""
    """A loss of your own as my_module:MyLoss, see `models.custom`; none where empty."""
    custom_weight: Positive = 1.0
    focal_gamma: NonNegative = 2.0
    tversky_beta: Probability = 0.7
    """Weight of false negatives; false positives weigh 1 - tversky_beta."""
    border_weight: NonNegative = 0.0
    """Extra weight of touching border pixels in cross_entropy and focal; all pixels weigh 1."""
    small_weight: NonNegative = 0.0
    """Extra weight of the pixels of a nucleus of mean area; inversely proportional to the area."""

    @model_validator(mode="after")
    def has_a_term(self) -> Self:
        if self.custom and ":" not in self.custom:
            raise UserError(f'custom = "{self.custom}", expected "my_module:MyLoss"')
        if not any((self.cross_entropy, self.dice, self.focal, self.tversky, self.lovasz, self.custom)):
            raise UserError(
                "all terms have weight 0; give cross_entropy, dice, focal, tversky or lovasz a weight"
            )
        return self

    @model_validator(mode="after")
    def uses_its_parameters(self) -> Self:
        _refuse_unused(self, not self.focal, ("focal_gamma",), "focal is 0")
        _refuse_unused(self, not self.tversky, ("tversky_beta",), "tversky is 0")
        _refuse_unused(self, not self.custom, ("custom_weight",), "custom is empty")
        no_pixel_term = not (self.cross_entropy or self.focal)
        reason = "cross_entropy and focal are 0, and only they have pixel weights"
        _refuse_unused(self, no_pixel_term, ("border_weight", "small_weight"), reason)
        return self


class IntensityConfig(Section):
    """How pixel values become the network's input."""

    window: Literal["none", "percentile", "level"] = "percentile"
    """percentile: the image's low and high percentile become black and white; level: fixed limits
    for all images; none: 8-bit images as they are."""
    window_level: float | None = None
    """Middle of the window "level" in the images' own units: Hounsfield units for CT."""
    window_width: Positive | None = None
    """Distance from black to white of the window "level"."""
    low_percentile: Annotated[float, Field(ge=0, lt=50)] = 0.1
    high_percentile: Annotated[float, Field(gt=50, le=100)] = 99.9
    normalisation: Literal["half", "imagenet", "z_score"] = "half"
    """half: 0..255 to -1..1; imagenet: mean and standard deviation of ImageNet; z_score: those of
    the network's input, which is a crop in training and the whole image in prediction."""

    @model_validator(mode="after")
    def has_its_window(self) -> Self:
        given = [self.window_level is not None, self.window_width is not None]
        if self.window == "level" and not all(given):
            raise UserError(
                'window "level" needs window_level and window_width, such as 40 and 400 for soft tissue'
            )
        reason = f'window is "{self.window}"'
        level_keys, percentile_keys = (
            ("window_level", "window_width"),
            ("low_percentile", "high_percentile"),
        )
        _refuse_unused(self, self.window != "level", level_keys, reason)
        _refuse_unused(self, self.window != "percentile", percentile_keys, reason)
        return self


class AugmentationConfig(Section):
    """Augmentation of the training crops."""

    preset: Literal["nuclei", "laboratories", "medical", "none"] = "nuclei"
    scales: tuple[Scale, Scale] | None = None
    """Smallest and largest scale of a crop (multi-scale training); by default the preset's."""
    copy_paste: Probability = 0.0
    """Probability that nuclei of the crop are pasted again at other places in it."""
    stain_to_fluorescence: Probability = 0.0
    """Probability that a crop of stained tissue is rendered as fluorescence (`data.appearance`)."""
    place: Literal["host", "device"] = "host"
    """host: by albumentations in loader processes, the reference; device: in batches on the device
    that trains, see `data.device_augmentation`, for a GPU that the CPU cannot feed."""

    @model_validator(mode="after")
    def can_be_done_there(self) -> Self:
        on_device = self.place == "device"
        host_only = ("copy_paste", "stain_to_fluorescence")
        _refuse_unused(self, on_device, host_only, 'place is "device", which does not have it')
        return self


class TrainingConfig(Section):
    """Data, optimiser and schedule of a training."""

    start: OptionalName = ""
    """Experiment to fine-tune: its weights of the same fold are the start; make trains it first."""
    pseudo_labels: OptionalName = ""
    """Experiment whose network of the same fold labels the test images, which are then trained on
    too (pseudo-labels); make tunes it first. The competition's rules allowed it. Off where empty:
    then no network has seen a test image."""
    external: dict[Name, Positive] = {}
    """External data sets to train on too, by name, each with a factor of its sampling weight."""
    by_source: bool = False
    """Balance sources (see `data.image_sources`; an external set is one) instead of modalities."""
    steps: Count = 2000
    """Optimiser steps of a fold."""
    steps_per_epoch: Count = 100
    """Steps between two checkpoints. An epoch is no pass over the images: images of rare modalities
    are drawn more often."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 16
    images: Count | None = None
    """Number of the fold's images to train on, drawn by the seed in proportion to the modalities;
    all where absent. A smaller draw is a subset of a larger one."""
    crop: Annotated[int, Field(ge=32, le=8192, multiple_of=32)] = 256
    """Side of the square crop in pixels."""
    learning_rate: Positive = 1e-3
    encoder_learning_rate: Positive | None = None
    """Learning rate of a pretrained encoder, where it differs."""
    weight_decay: NonNegative = 1e-2
    warmup: Probability = 0.05
    """Fraction of the steps with a rising learning rate; then a cosine decreases it to zero."""
    gradient_clip: Positive = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    """Decay of the exponential moving average (EMA) of the weights, which is validated and saved; 0
    saves the last weights."""
    balance: Probability = 0.5
    """Oversampling of rare modalities: one of n images is drawn in proportion to n ** (1 - balance),
    so 0 draws all images equally often, 1 all modalities."""
    validate_every: Count = 10
    """Epochs between validations on the held-out fold; the last epoch is always validated."""
    validation_images: Count | None = 32
    """Number of held-out images in validations during training; all where absent."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """Mixed precision; auto: bf16-mixed where the device computes faster with it, else 32-true."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @property
    def batch(self) -> str:
        """Content of a batch in words: `8 crops of 128 pixels`."""
        return f"{self.batch_size} crops of {self.crop} pixels"


class PredictionConfig(Section):
    """How a trained network predicts; nothing here changes the weights."""

    flips: Literal[1, 2, 4, 8] = 8
    """Test-time augmentation (TTA): 1 none, 2 one mirror, 4 both mirrors, 8 also the transposes."""
    scales: Annotated[tuple[Scale, ...], Field(min_length=1, max_length=16)] = (1.0,)
    """Scales of the image whose probability maps are averaged."""
    vary_flips: bool = False
    """Use different flips at each scale, `flips` of the eight at each, instead of the same ones."""
    halve_scales_from: Positive | None = None
    """Typical diameter of an image's nuclei in pixels from which all scales are halved; from twice
    that diameter they are quartered, and so on. It helps where training saw few such large nuclei.
    Off where absent."""
    fit_diameter: Positive | None = None
    """Diameter in pixels to which the image is rescaled by the mean diameter of its nuclei;
    `scales` are then relative to that. For images of sources that training never saw. Off where
    absent; where it is set, `halve_scales_from` is not used."""
    rim_level: Probability | None = None
    """Relative brightness, from the background (0) to the inside of the nucleus (1), at which rims
    are put by a shift of the foreground map near each nucleus (`postprocessing.rim_calibration`):
    for images of sources that training never saw. Off where absent, and in images with dark
    nuclei."""

    @model_validator(mode="after")
    def has_flips_to_vary(self) -> Self:
        unused = len(self.scales) == 1 or self.flips == 8
        _refuse_unused(self, unused, ("vary_flips",), "there is one scale, or each has all eight flips")
        return self


WEIGHTLESS: dict[str, Any] = {
    "name": True,
    "prediction": True,
    "training": {"validate_every": True, "validation_images": True},
}
"""Settings that do not change the trained weights, in the form of pydantic's `exclude`."""


class Config(Section):
    """One experiment. `name` is the name of its file without the ending."""

    name: Name
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
        if self.augmentation.place == "host":
            # trainings from before there was a choice can be resumed
            del settings["augmentation.place"]
        return settings
