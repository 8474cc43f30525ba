"""A user's network or loss, named in the config: its contract is tried before training."""

import pytest
import torch
from tiny_training import CONFIG, train

from nuclei.config import Config, LossConfig, ModelConfig, TargetConfig
from nuclei.config_files import parse_config
from nuclei.inference.predictor import load_predictor
from nuclei.models.factory import build_model, parameter_groups
from nuclei.synthetic.images import make_image
from nuclei.training.losses import build_loss

NETWORKS = """
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self, in_channels, out_channels, width=4):
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.last = nn.Conv2d(width, out_channels, 1)
    def forward(self, image):
        assert image.shape[-1] % 32 == image.shape[-2] % 32 == 0
        return self.last(torch.relu(self.first(image)))

class WithEncoder(Plain):
    smallest = multiple = 16
    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels)
        self.encoder = nn.Conv2d(3, 3, 1)
    def forward(self, image):
        return super().forward(torch.nn.functional.pad(self.encoder(image), (0, 32, 0, 32)))[..., :-32, :-32]

class Supervised(Plain):
    def forward(self, image):
        logits = super().forward(image)
        return [logits, logits[..., ::2, ::2]] if self.training else logits

class Half(Plain):
    def forward(self, image):
        return super().forward(image)[..., ::2, ::2]

class Pair(Plain):
    def forward(self, image):
        return {"logits": super().forward(image)}

class Nan(Plain):
    def forward(self, image):
        return super().forward(image) / 0 * 0

class Odd(Plain):
    smallest = "large"

class Nothing(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
    def forward(self, image):
        return image

class NoModule:
    pass

class Loss(nn.Module):
    def forward(self, logits, target):
        return (logits.sigmoid() - target).abs().mean()

class PixelLoss(Loss):
    def forward(self, logits, target):
        return (logits - target).abs()

class Constant:
    def __call__(self, logits, target):
        return torch.tensor(1.0)
"""


@pytest.fixture(autouse=True)
def _own_module(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "own_networks", raising=False)


def own(name, **settings):
    return ModelConfig(architecture=f"own_networks:{name}", **settings)


def test_an_own_network_trains_and_predicts_images_of_any_size(images, tmp_path):
    config = CONFIG.model_copy(update={"model": own("Plain", options={"width": 6})})
    checkpoint = train(images, tmp_path / "own" / "fold_0", config)
    assert checkpoint["model"]["network.first.weight"].shape == (6, 3, 3, 3)
    predictor = load_predictor(checkpoint, "model.pt", torch.device("cpu"))
    for height, width in ((33, 90), (64, 64)):
        assert predictor(make_image("small_fluorescence", 0, height, width)[0]).shape == (3, height, width)


def test_the_plain_unet_of_this_project_is_such_a_network():
    config = ModelConfig(architecture="nuclei.models.unet:UNet", options={"width": 4, "depth": 2})
    assert build_model(config, 3)(torch.rand(1, 3, 50, 35)).shape == (1, 3, 50, 35)


def test_deep_supervision_of_an_own_network_is_cropped_at_every_scale():
    network = build_model(own("Supervised"), 3).train()
    assert [tuple(one.shape[-2:]) for one in network(torch.rand(1, 3, 80, 70))] == [(80, 70), (40, 35)]


def test_the_encoder_of_an_own_network_gets_its_learning_rate():
    training = CONFIG.training.model_copy(update={"encoder_learning_rate": 1e-5})
    network = build_model(own("WithEncoder"), 3)
    assert network.smallest == 16
    assert {group["lr"] for group in parameter_groups(network, training)} == {1e-5, training.learning_rate}
    with pytest.raises(ValueError, match="no separate encoder"):
        parameter_groups(build_model(own("Plain"), 3), training)


def test_the_trial_leaves_random_numbers_and_statistics_as_they_were():
    torch.manual_seed(0)
    own_module = __import__("own_networks")
    expected = own_module.Plain(3, 3).state_dict(), torch.rand(1)
    torch.manual_seed(0)
    found = build_model(own("Plain"), 3).network.state_dict(), torch.rand(1)
    assert torch.equal(found[1], expected[1])
    assert all(torch.equal(tensor, found[0][name]) for name, tensor in expected[0].items())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "own_networks:Half",
            r"in training mode it returned shape \(2, 3, 32, 32\), expected \(2, 3, 64, 64\)",
        ),
        ("own_networks:Pair", "returned dict, expected a tensor of logits"),
        ("own_networks:Nan", "returned NaN or infinity"),
        ("own_networks:Odd", "attribute smallest = 'large', expected a whole number from 1 to 1024"),
        ("own_networks:Nothing", "has no parameters to train"),
        ("own_networks:NoModule", "expected a subclass of torch.nn.Module"),
        ("own_networks:Plane", "has no class Plane; it has Plain"),
        ("antigravity:Plain", "antigravity is a module of Python itself"),
        ("own_network:Plain", "no module own_network; put own_network.py into"),
    ],
)
def test_an_own_network_that_breaks_the_contract_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        build_model(ModelConfig(architecture=name), 3)


def test_an_own_network_whose_code_fails_keeps_its_traceback_and_says_what_it_was_given():
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'") as caught:
        build_model(own("Plain", options={"depth": 3}), 3)
    assert "model.options" in caught.value.__notes__[0]


def test_settings_of_the_unet_are_refused_for_an_own_network():
    with pytest.raises(ValueError, match="width = 8 means nothing to own_networks:Plain"):
        build_model(own("Plain", width=8), 3)


def test_an_own_loss_is_added_with_its_weight():
    logits, target = torch.randn(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    loss = build_loss(LossConfig(custom="own_networks:Loss", custom_weight=3.0), TargetConfig())
    terms = loss.terms(logits, target, None)
    torch.testing.assert_close(terms["custom"], 3 * (logits.sigmoid() - target).abs().mean())
    torch.testing.assert_close(loss(logits, target), sum(terms.values()))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_networks:PixelLoss", r"returned \(2, 3, 64, 64\), expected a tensor of one number"),
        ("own_networks:Constant", "no gradient can be taken"),
        ("own_networks:Los", "has no class Los; it has Loss"),
    ],
)
def test_an_own_loss_that_breaks_the_contract_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        build_loss(LossConfig(custom=name), TargetConfig())


def test_an_own_loss_may_be_the_only_term_and_must_name_a_module():
    assert LossConfig(cross_entropy=0, dice=0, custom="own_networks:Loss").custom
    with pytest.raises(ValueError, match='expected "my_module:MyLoss"'):
        LossConfig(custom="Loss")


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("model", {"width": 10**9}, "model.width = 1000000000"),
        ("model", {"width": 1024, "depth": 6}, "makes 65536 channels at the bottleneck, expected at most 8192"),
        ("model", {"transformer_layers": 10**6}, "model.transformer_layers = 1000000"),
        ("model", {"decoder_channels": [10**9]}, "decoder_channels"),
        ("model", {"in_channels": 0}, "model.in_channels = 0"),
        ("prediction", {"scales": [1.0] * 3000}, "at most 16 items"),
        ("prediction", {"scales": [1e9]}, "prediction.scales"),
        ("prediction", {"scales": []}, "at least 1 item"),
        ("training", {"batch_size": 10**9}, "training.batch_size"),
        ("training", {"crop": 32 * 10**6}, "training.crop"),
        ("training", {"learning_rate": float("inf")}, "training.learning_rate"),
    ],
)
def test_values_that_no_machine_can_hold_are_refused_when_the_config_is_read(section, values, message):
    with pytest.raises(ValueError, match=message):
        parse_config({"name": "hostile", section: values}, "hostile.toml")


def test_a_number_of_input_channels_that_images_do_not_have_is_refused_before_training(images, tmp_path):
    config = Config(name="five", model=ModelConfig(width=2, depth=1, in_channels=5))
    assert build_model(config.model, 3)(torch.rand(1, 5, 32, 32)).shape == (1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"model\.in_channels = 5, but images are read as 3 channels"):
        train(images, tmp_path / "five" / "fold_0", config)
