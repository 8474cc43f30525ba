"""The file of a trained fold (`best.pt`): weights with all that prediction needs to know."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from nuclei.config import Config
from nuclei.errors import UserError
from nuclei.io.files import atomic_path
from nuclei.models.factory import parameter_count
from nuclei.provenance import code_commit


def write_checkpoint(
    path: Path, network: nn.Module, config: Config, fold: int, trained_on: list[str], hardware: str
) -> None:
    """Writes a network's weights, its config, the fold it holds out and the ids of the images it was trained on."""
    content = {
        "config": config.model_dump(),
        "model": {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()},
        "fold": fold,
        "trained_on": trained_on,
        "effort": {"parameters": parameter_count(network), "hardware": hardware, "commit": code_commit()},
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Contents of a checkpoint: `config`, `model` (state dict), `fold`, `trained_on` (image ids) and notes.

    Raises:
        UserError: the file is missing or is no checkpoint.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such checkpoint; train the fold first (`make train`)")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names a dozen kinds; all mean that the file cannot be used
        raise UserError(f"{path}: not a readable checkpoint ({error}); delete it and train the fold again") from error
    if not isinstance(checkpoint, dict) or not {"config", "model"} <= checkpoint.keys():
        raise UserError(f"{path}: no checkpoint of this project (it lacks `config` and `model`)")
    return checkpoint
