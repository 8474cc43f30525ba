"""The summary counts what the network is and shows the sizes that the text speaks of."""

import pytest

from nuclei.config import ModelConfig
from nuclei.models.factory import build_model, parameter_count
from nuclei.models.summary import layer_table, summarise


def test_levels_of_the_full_unet_are_those_of_the_text():
    statistics, levels = summarise(ModelConfig(), 572)
    assert levels == [(64, 572, 572), (128, 286, 286), (256, 143, 143), (512, 71, 71), (512, 35, 35)]
    assert statistics.total_params == 17_263_107


@pytest.mark.parametrize("model", [{"width": 8}, {"width": 8, "upsampling": "transposed", "depth": 2}])
def test_parameters_are_those_that_training_adjusts_and_multiply_adds_grow_with_the_area(model):
    config = ModelConfig(**model)
    small, large = (summarise(config, size)[0] for size in (64, 128))
    assert small.total_params == large.total_params == parameter_count(build_model(config, 3))
    assert large.total_mult_adds == pytest.approx(4 * small.total_mult_adds, rel=0.01)


def test_multiply_adds_of_a_convolution_are_weights_times_pixels():
    statistics, _ = summarise(ModelConfig(width=4, depth=1), 32)
    convolutions = [layer for layer in statistics.summary_list if layer.class_name == "Conv2d"]
    assert len(convolutions) == 7
    for layer in convolutions:
        assert layer.macs == layer.num_params * layer.output_size[2] * layer.output_size[3]


def test_a_transposed_convolution_counts_what_goes_in_and_attention_its_products():
    plain, transposed = (
        summarise(ModelConfig(width=4, depth=1, upsampling=kind), 32)[0] for kind in ("bilinear", "transposed")
    )
    bias = 3 * 32 * 32  # of the output layer, which torchinfo counts with the products

    def convolve(statistics):
        return sum(layer.macs for layer in statistics.summary_list if layer.class_name == "Conv2d") - bias

    products = (
        16 * 16 * 8 * 4 * 2 * 2
    )  # from 8 channels of 16 x 16 pixels to 4 channels, a weight for each of 2 x 2
    assert transposed.total_mult_adds == convolve(transposed) + products
    assert plain.total_mult_adds == convolve(plain)

    def attend(size):
        config = ModelConfig(
            architecture="transunet", width=4, depth=1, transformer_layers=1, transformer_heads=1
        )
        return summarise(config, size)[0].total_mult_adds

    tokens, channels = 16 * 16, 4
    assert attend(64) - 4 * attend(32) == pytest.approx(
        2 * channels * ((4 * tokens) ** 2 - 4 * tokens**2), rel=0.01
    )


def test_the_table_of_layers_has_no_totals_of_torchinfo():
    statistics, _ = summarise(ModelConfig(width=4, depth=1), 32)
    table = layer_table(statistics)
    assert "Conv2d" in table
    assert "Units" not in table
    assert "Total" not in table
