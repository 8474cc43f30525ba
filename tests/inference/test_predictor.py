import numpy as np
import pytest
import torch
from tiny_networks import Brightness

from nuclei.config import Config, IntensityConfig, ModelConfig, PredictionConfig, TrainingConfig
from nuclei.inference import predictor as predictor_module
from nuclei.inference.predictor import Predictor, fit_scales, load_predictor
from nuclei.inference.tta import average_over_flips, flips_for_scale, list_flips
from nuclei.models.checkpoint_file import load_checkpoint
from nuclei.models.factory import build_model
from nuclei.postprocessing.rim_calibration import calibrate_rims
from nuclei.synthetic.images import make_image

CPU = torch.device("cpu")
PIXELS = torch.rand(3, 37, 50, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("flips", [1, 2, 4, 8])
def test_averaging_the_flips_of_an_identity_is_the_identity(flips):
    assert torch.allclose(average_over_flips(lambda flipped: flipped, PIXELS, list_flips(flips)), PIXELS)


@pytest.mark.parametrize("flips", [1, 2, 4, 8])
def test_as_many_flips_are_predicted_as_asked_for_and_no_two_are_the_same(flips):
    seen = []

    def forward(flipped):
        seen.extend(flipped)
        return flipped

    average_over_flips(forward, PIXELS, list_flips(flips))
    assert len({image.numpy().tobytes() for image in seen}) == len(seen) == flips


@pytest.mark.parametrize(("flips", "scales"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_scales_with_different_flips_have_all_eight_between_them(flips, scales):
    chosen = [flip for index in range(scales) for flip in flips_for_scale(flips, index)]
    assert set(chosen) == set(list_flips(8))
    assert sum(flip.transposed for index in range(4) for flip in flips_for_scale(1, index)) == 2


def test_a_scale_keeps_its_own_flips_when_all_scales_are_halved():
    network = predictor(scales=(0.5, 1.0, 2.0), flips=2, vary_flips=True)
    flips = [network.choose_flips(scale, index) for index, scale in enumerate((0.5, 1.0, 2.0))]
    assert flips == [flips_for_scale(2, index) for index in range(3)]
    assert [network.choose_flips(scale, index) for index, scale in enumerate((0.25, 0.5, 1.0))] == [
        flips_for_scale(2, 0),
        *flips[:2],
    ]


def test_with_eight_flips_the_maps_flip_with_the_image():
    def forward(flipped):
        return flipped * torch.linspace(0, 1, flipped.shape[-1])

    turned = average_over_flips(forward, PIXELS.transpose(1, 2).flip(1), list_flips(8))
    assert torch.allclose(
        turned, average_over_flips(forward, PIXELS, list_flips(8)).transpose(1, 2).flip(1), atol=1e-6
    )


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
    ("diameter", "scales"), [(40, (0.5, 1.0, 2.0)), (70, (0.25, 0.5, 1.0)), (150, (0.125, 0.25, 0.5))]
)
def test_scales_are_halved_for_large_nuclei(diameter, scales):
    network = predictor(scales=(0.5, 1.0, 2.0), halve_scales_from=60.0)
    network.model = Brightness()
    assert network.choose_scales(disc(diameter)) == scales
    fixed = predictor(scales=scales)
    fixed.model = Brightness()
    assert np.array_equal(network(disc(diameter)), fixed(disc(diameter)))


@pytest.mark.parametrize("diameter", [25, 40, 90])
def test_scales_bring_nuclei_to_the_diameter_that_is_asked_for(diameter):
    network = predictor(scales=(0.5, 1.0), fit_diameter=40.0)
    network.model = Brightness()
    scales = network.choose_scales(disc(diameter))
    assert scales[1] == pytest.approx(40 / diameter, rel=0.05)
    assert scales[0] == pytest.approx(scales[1] / 2, abs=0.001)
    fixed = predictor(scales=scales)
    fixed.model = Brightness()
    assert np.array_equal(network(disc(diameter)), fixed(disc(diameter)))


@pytest.mark.parametrize(("factor", "scales"), [(100, (1.0, 2.0)), (1e-3, (0.1, 0.2))])
def test_scales_of_tiny_and_of_huge_nuclei_are_bounded(factor, scales):
    assert fit_scales((0.5, 1.0), factor) == scales


@pytest.mark.parametrize("sizes", [{"halve_scales_from": 60.0}, {"fit_diameter": 40.0}])
def test_an_image_without_nuclei_keeps_the_scales(sizes):
    network = predictor(scales=(1.0, 2.0), **sizes)
    network.model = Brightness()
    assert network.choose_scales(np.zeros((64, 64, 3), np.uint8)) == (1.0, 2.0)


def test_flips_give_the_same_maps_in_one_batch_and_one_by_one(monkeypatch):
    image = make_image("purple_tissue", 0, 65, 80)[0]
    together = predictor()(image)
    monkeypatch.setattr(predictor_module, "PIXELS_PER_BATCH", 1)
    assert np.abs(predictor()(image).astype(int) - together).max() <= 1


def checkpoint_of(network):
    return {"config": network.config.model_dump(), "model": network.model.state_dict()}


def test_trained_weights_predict_with_the_prediction_section_of_another_config():
    image = make_image("purple_tissue", 0, 65, 80)[0]
    asked = predictor(flips=4, scales=(1.0, 1.5))
    loaded = load_predictor(checkpoint_of(predictor(flips=1)), "model.pt", CPU, asked.config)
    assert np.array_equal(loaded(image), asked(image))
    assert not np.array_equal(loaded(image), predictor(flips=1)(image))


def test_another_config_that_changes_the_weights_is_refused_by_its_keys():
    network = predictor(flips=1)
    changes = {"model": ModelConfig(width=4, depth=2, residual=True), "training": TrainingConfig(seed=1)}
    asked = network.config.model_copy(update={"name": "other", **changes})
    with pytest.raises(
        ValueError, match=r"config other differs .* model\.pt in model\.residual, training\.precision"
    ):
        load_predictor(checkpoint_of(network), "model.pt", CPU, asked)


def test_a_file_that_is_no_checkpoint_is_named_with_a_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"model\.pt: no such checkpoint; train the fold first"):
        load_checkpoint(tmp_path / "model.pt")
    (tmp_path / "model.pt").write_bytes(b"PK truncated")
    with pytest.raises(ValueError, match=r"model\.pt: not a readable checkpoint"):
        load_checkpoint(tmp_path / "model.pt")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"lacks `config` and `model`"):
        load_checkpoint(tmp_path / "model.pt")
    spoilt = {"outc.weight": torch.tensor([1.0, float("nan")])}
    torch.save({"config": {}, "model": spoilt, "fold": 0, "trained_on": []}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt: the tensor 'outc.weight' holds NaN"):
        load_checkpoint(tmp_path / "model.pt")


def test_the_rim_level_calibrates_the_foreground_by_the_image():
    image = make_image("small_fluorescence", 3, 160, 200)[0]
    plain, calibrated = predictor(flips=1), predictor(flips=1, rim_level=0.3)
    plain.model = calibrated.model = Brightness()
    maps = plain(image)
    assert np.array_equal(calibrated(image), calibrate_rims(maps, image, 0.3))
    assert not np.array_equal(calibrated(image), maps)
