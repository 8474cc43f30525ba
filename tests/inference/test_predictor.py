import numpy as np
import pytest
import torch
from tiny_networks import Brightness

from nuclei.config import Config, IntensityConfig, ModelConfig, PredictionConfig, TrainingConfig
from nuclei.inference import predictor as predictor_module
from nuclei.inference.predictor import Predictor, load_predictor
from nuclei.inference.tta import average_views, deal_views, list_views
from nuclei.models.checkpoint_file import load_checkpoint
from nuclei.models.factory import build_model
from nuclei.synthetic.images import make_image

CPU = torch.device("cpu")
PIXELS = torch.rand(3, 37, 50, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("flips", [1, 2, 4, 8])
def test_averaging_the_views_of_an_identity_is_the_identity(flips):
    assert torch.allclose(average_views(lambda views: views, PIXELS, list_views(flips)), PIXELS)


@pytest.mark.parametrize("flips", [1, 2, 4, 8])
def test_as_many_views_are_seen_as_asked_for_and_no_two_are_the_same(flips):
    seen = []

    def forward(views):
        seen.extend(views)
        return views

    average_views(forward, PIXELS, list_views(flips))
    assert len({view.numpy().tobytes() for view in seen}) == len(seen) == flips


@pytest.mark.parametrize(("flips", "zooms"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_zooms_to_which_views_are_dealt_have_all_eight_between_them(flips, zooms):
    dealt = [view for place in range(zooms) for view in deal_views(flips, place)]
    assert set(dealt) == set(list_views(8))
    assert sum(view.transposed for place in range(4) for view in deal_views(1, place)) == 2


def test_a_zoom_has_its_own_views_where_they_are_dealt_and_keeps_them_when_all_are_halved():
    network = predictor(scales=(0.5, 1.0, 2.0), flips=2, vary_flips=True)
    views = [network.choose_views(scale, place) for place, scale in enumerate((0.5, 1.0, 2.0))]
    assert views == [deal_views(2, place) for place in range(3)]
    assert [network.choose_views(scale, place) for place, scale in enumerate((0.25, 0.5, 1.0))] == [
        deal_views(2, 0),
        *views[:2],
    ]


def test_eight_views_make_any_answer_turn_with_the_image():
    def forward(views):
        return views * torch.linspace(0, 1, views.shape[-1])

    turned = average_views(forward, PIXELS.transpose(1, 2).flip(1), list_views(8))
    assert torch.allclose(turned, average_views(forward, PIXELS, list_views(8)).transpose(1, 2).flip(1), atol=1e-6)


def predictor(**prediction):
    torch.manual_seed(0)
    config = Config(
        name="tiny",
        model=ModelConfig(width=4, depth=2),
        intensity=IntensityConfig(window="none"),
        training=TrainingConfig(precision="32-true"),
        prediction=PredictionConfig(**prediction),
    )
    return Predictor(build_model(config.model, 3), config, CPU, None)


@pytest.mark.parametrize(("height", "width"), [(33, 47), (64, 64), (519, 161)])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0)])
def test_maps_have_the_size_of_the_image(height, width, scales):
    maps = predictor(flips=8, scales=scales)(make_image("small_fluorescence", 0, height, width)[0])
    assert maps.shape == (3, height, width)
    assert maps.dtype == np.uint8


def disc(diameter, side=256):
    yy, xx = np.mgrid[:side, :side] - side / 2
    return np.where(np.hypot(yy, xx) < diameter / 2, np.uint8(230), np.uint8(20))[..., None].repeat(3, axis=2)


@pytest.mark.parametrize(
    ("diameter", "zooms"), [(40, (0.5, 1.0, 2.0)), (70, (0.25, 0.5, 1.0)), (150, (0.125, 0.25, 0.5))]
)
def test_zooms_are_halved_as_often_as_the_nuclei_are_large(diameter, zooms):
    network = predictor(scales=(0.5, 1.0, 2.0), halve_scales_from=60.0)
    network.model = Brightness()
    assert network.choose_scales(disc(diameter)) == zooms
    fixed = predictor(scales=zooms)
    fixed.model = Brightness()
    assert np.array_equal(network(disc(diameter)), fixed(disc(diameter)))


def test_an_image_without_nuclei_keeps_the_zooms():
    network = predictor(scales=(1.0, 2.0), halve_scales_from=60.0)
    network.model = Brightness()
    assert network.choose_scales(np.zeros((64, 64, 3), np.uint8)) == (1.0, 2.0)


def test_views_give_the_same_maps_in_one_batch_and_one_by_one(monkeypatch):
    image = make_image("purple_tissue", 0, 65, 80)[0]
    together = predictor()(image)
    monkeypatch.setattr(predictor_module, "PIXELS_AT_ONCE", 1)
    assert np.abs(predictor()(image).astype(int) - together).max() <= 1


def checkpoint_of(network):
    return {"config": network.config.model_dump(), "model": network.model.state_dict()}


def test_weights_that_are_there_predict_as_another_config_asks():
    image = make_image("purple_tissue", 0, 65, 80)[0]
    asked = predictor(flips=4, scales=(1.0, 1.5))
    loaded = load_predictor(checkpoint_of(predictor(flips=1)), "best.pt", CPU, asked.config)
    assert np.array_equal(loaded(image), asked(image))
    assert not np.array_equal(loaded(image), predictor(flips=1)(image))


def test_a_config_that_asks_for_more_than_another_prediction_is_refused_by_its_keys():
    network = predictor(flips=1)
    changes = {"model": ModelConfig(width=4, depth=2, residual=True), "training": TrainingConfig(seed=1)}
    asked = network.config.model_copy(update={"name": "other", **changes})
    with pytest.raises(ValueError, match=r"config other differs .* best\.pt in model\.residual, training\.precision"):
        load_predictor(checkpoint_of(network), "best.pt", CPU, asked)


def test_a_file_that_is_no_checkpoint_is_named_with_a_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"best\.pt: no such checkpoint; train the fold first"):
        load_checkpoint(tmp_path / "best.pt")
    (tmp_path / "best.pt").write_bytes(b"PK truncated")
    with pytest.raises(ValueError, match=r"best\.pt: not a readable checkpoint"):
        load_checkpoint(tmp_path / "best.pt")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "best.pt")
    with pytest.raises(ValueError, match=r"lacks `config` and `model`"):
        load_checkpoint(tmp_path / "best.pt")
