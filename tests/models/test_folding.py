"""Batch normalisation folded into convolutions."""

import copy

import pytest
import torch

from nuclei.config import ModelConfig
from nuclei.models.factory import build_model
from nuclei.models.folding import can_fold, fold_normalisation

LITE0 = ModelConfig(architecture="encoder_unet", encoder="tu-tf_efficientnet_lite0", normalisation="instance")


@pytest.fixture(scope="module")
def network():
    """With statistics and scales as after a training, which differ from 0 and 1."""
    torch.manual_seed(0)
    network = build_model(LITE0, 3).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    return network


@pytest.mark.parametrize("size", [(64, 96), (67, 75)])
def test_the_folded_network_answers_like_the_one_it_was_made_from(network, size):
    image = torch.rand(2, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(fold_normalisation(network)(image), network(image), rtol=1e-4, atol=1e-4)


def test_folding_leaves_no_batch_normalisation_and_the_network_as_it_was(network):
    before = copy.deepcopy(network.state_dict())
    folded = fold_normalisation(network)
    assert not any(
        isinstance(module, torch.nn.BatchNorm2d) and type(module).__name__ != "InstanceNorm"
        for module in folded.modules()
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_in_bfloat16_probabilities_stay_close(network):
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        folded = fold_normalisation(network, torch.bfloat16)(image.bfloat16()).float().sigmoid()
        apart = (folded - network(image).sigmoid()).abs()
    assert apart.mean() < 0.01


def test_only_networks_with_this_encoder_are_folded(network):
    assert can_fold(network)
    assert not can_fold(build_model(ModelConfig(width=2, depth=1), 3))
