import pytest
import torch

from nuclei.errors import UserError
from nuclei.publishing.weight_average import average_tensors

ONE = {"weight": torch.tensor([0.0, 2.0]), "steps": torch.tensor(7)}
OTHER = {"weight": torch.tensor([4.0, 2.0]), "steps": torch.tensor(9)}


def test_floats_are_averaged_by_weight_and_counts_are_those_of_the_first():
    average = average_tensors([ONE, OTHER], [3.0, 1.0])
    assert average["weight"].tolist() == [1.0, 2.0]
    assert average["steps"].item() == 7


def test_half_precision_is_averaged_in_single():
    halves = [{"weight": tensor["weight"].half()} for tensor in (ONE, OTHER)]
    assert average_tensors(halves, [1.0, 2.0])["weight"].dtype == torch.float32


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0]])
def test_each_network_needs_a_positive_weight(weights):
    with pytest.raises(UserError, match="give one above 0 each"):
        average_tensors([ONE, OTHER], weights)


def test_networks_of_different_configs_are_refused():
    with pytest.raises(UserError, match="differ in their tensors"):
        average_tensors([ONE, {"weight": torch.zeros(3), "steps": torch.tensor(1)}], [1.0, 1.0])
