"""The file of a trained fold: weights, with everything that prediction needs to know about them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nuclei.config import Config
from nuclei.data.set_provenance import SetProvenance
from nuclei.errors import UserError
from nuclei.io.files import atomic_path
from nuclei.models.factory import parameter_count
from nuclei.models.weights_file import check_finite
from nuclei.provenance import code_commit

RESULT = "model.pt"
"""File name of a trained fold's weights: their EMA after the last step."""
OLD_RESULT = "best.pt"
"""File name of the same in earlier versions."""


def write_checkpoint(
    path: Path,
    network: nn.Module,
    config: Config,
    fold: int,
    trained_on: list[str],
    hardware: str,
    settings: Mapping[str, str],
    external: Sequence[SetProvenance] = (),
) -> None:
    """Writes a network's weights, its config, the fold it holds out and the ids it was trained on.

    `external` says where the images of external sets come from.
    `settings` are those that decided the weights, see `training.checkpoint.collect_settings`.
    """
    content = {
        "config": config.model_dump(),
        "model": {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()},
        "fold": fold,
        "trained_on": trained_on,
        "settings": dict(settings),
        "external": [each.short().model_dump() for each in external],
        "effort": {
            "parameters": parameter_count(network),
            "hardware": hardware,
            "commit": code_commit(),
        },
    }
    with atomic_path(path) as temporary:
        save_synced(content, temporary)


def save_synced(content: dict[str, Any], path: Path) -> None:
    """`torch.save` that returns only when the disk has the bytes, so that a power cut cannot lose
    them.
    """
    with open(path, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def find_result(folder: Path) -> Path:
    """The checkpoint of a fold's folder: model.pt, or best.pt where an earlier version left only
    that.
    """
    old = folder / OLD_RESULT
    return old if old.is_file() and not (folder / RESULT).is_file() else folder / RESULT


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Contents of a checkpoint: `config`, `model` (state dict), `fold`, `trained_on` (image ids)
    and notes.

    Where there is no model.pt, best.pt beside it is read, the name of earlier versions.

    Raises:
        UserError: the file is missing, is no checkpoint, or holds values that are not finite.
    """
    path = Path(path)
    if path.name == RESULT:
        path = find_result(path.parent)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; train the fold first (`make train`)")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds; all mean that the file cannot be used
        raise UserError(
            f"{path}: not a readable checkpoint ({error}); delete it and train the fold again"
        ) from error
    if not isinstance(checkpoint, dict) or not {"config", "model"} <= checkpoint.keys():
        raise UserError(f"{path}: no checkpoint of this project (it lacks `config` and `model`)")
    check_finite(checkpoint["model"], path)
    return checkpoint
