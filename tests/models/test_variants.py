"""Each config's network, target, loss and optimiser take a training step together."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nuclei.arrays import BORDER, CHANNELS
from nuclei.config_files import read_config
from nuclei.data.dataset import make_target
from nuclei.data.targets import pixel_weights
from nuclei.models.factory import build_model, parameter_groups
from nuclei.training.losses import build_loss

FILES = sorted(Path(__file__).parents[2].glob("configs/**/*.toml"))
HEIGHT, WIDTH = 33, 47


def touching_discs():
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    label_map = np.zeros((HEIGHT, WIDTH), np.int32)
    for label, column in enumerate((14, 31), start=1):
        label_map[(rows - 16) ** 2 + (columns - column) ** 2 <= 81] = label
    return label_map


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(path.parents[1]).with_suffix("")))
def test_a_config_takes_a_step_on_odd_sizes_in_bfloat16_and_its_weights_come_back(path):
    torch.manual_seed(0)
    config = read_config(path)
    label_map = touching_discs()
    target = make_target(label_map, config.target)
    border = target[BORDER if config.target.scheme == "energy" else -1]
    loss = config.loss
    weights = pixel_weights(label_map, border, loss.border_weight, loss.small_weight)
    image = torch.rand(2, config.model.in_channels, HEIGHT, WIDTH)
    batch = [torch.from_numpy(np.stack([array, array])) for array in (target, weights)]

    model = build_model(config.model, CHANNELS, pretrained=False).train()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(parameter_groups(model, config.training))
    with torch.autocast("cpu", torch.bfloat16):
        cost = build_loss(loss, config.target)(model(image), *batch)
    cost.backward()
    optimizer.step()
    assert torch.isfinite(cost)
    reached = [parameter for parameter in model.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(parameter.grad).all() for parameter in reached)
    after = list(model.parameters())
    changed = sum(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert changed > 0.5 * len(reached)
    assert all(torch.isfinite(parameter).all() for parameter in after)

    other = build_model(config.model, CHANNELS, pretrained=False)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        answers = [network.eval()(image[:1]) for network in (model, other)]
    assert answers[0].shape == (1, CHANNELS, HEIGHT, WIDTH)
    assert torch.equal(*answers)
