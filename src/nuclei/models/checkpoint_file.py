"""The file of a trained fold: weights, with everything that prediction needs to know about them."""

import json
import os
import pickle
import zipfile
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
    """`torch.save` that returns once the disk has the bytes: a power cut loses nothing."""
    with open(path, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def find_result(folder: Path) -> Path:
    """Checkpoint of a fold's folder: model.pt, or best.pt of an earlier version."""
    old = folder / OLD_RESULT
    return old if old.is_file() and not (folder / RESULT).is_file() else folder / RESULT


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Contents of a checkpoint: `config`, `model` (state dict), `fold`, `trained_on` (ids), notes.

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
        checkpoint = read_plain(path)
    except Exception as error:  # torch raises a dozen kinds; all mean that the file cannot be used
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path}: not a readable checkpoint ({reason}); delete it and train the fold again"
        ) from error
    if not isinstance(checkpoint, dict) or not {"config", "model"} <= checkpoint.keys():
        raise UserError(f"{path}: no checkpoint of this project (it lacks `config` and `model`)")
    _check_content(checkpoint, path)
    check_finite(checkpoint["model"], path)
    return checkpoint


def read_plain(path: Path) -> Any:
    """What `torch.save` wrote: tensors and plain values; nothing in the file is run.

    Raises:
        Exception: of many kinds. The records of a file of torch are not compressed, so one whose
            content is larger than the file is refused before it is unpacked.
    """
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > path.stat().st_size:
        raise UserError(f"its records claim {size} bytes, the file has {path.stat().st_size}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch would advise to load the file without this protection
        raise UserError("it holds more than tensors and plain values; nothing of it was run") from error


def _check_content(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Refuses values of other types than those that `write_checkpoint` writes.

    Raises:
        UserError: names the first of them.
    """
    fold, ids, tensors = checkpoint.get("fold"), checkpoint.get("trained_on"), checkpoint["model"]
    expected = {
        "config: a table of plain settings": _is_plain_table(checkpoint["config"]),
        "fold: a number": isinstance(fold, int) and abs(fold) < 10**6,
        "trained_on: names of images": isinstance(ids, list) and all(isinstance(one, str) for one in ids),
        "model: tensors by name": isinstance(tensors, dict) and all(isinstance(name, str) for name in tensors),
    }
    for what, holds in expected.items():
        if not holds:
            raise UserError(f"{path}: no checkpoint of this project; expected as its {what}")
    for name, tensor in tensors.items():
        if not _is_dense(tensor):
            raise UserError(f"{path}: {name[:100]!r} is no tensor of numbers that are all in the file")


def _is_plain_table(value: Any) -> bool:
    """Whether JSON could hold it: no cycles, no nesting without end, no tensors."""
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(value, dict)


def _is_dense(tensor: Any) -> bool:
    """Whether a tensor stores every element: it is not sparse, repeated or without values."""
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    own = tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    return own and not tensor.is_quantized and not tensor.is_complex()
