"""The file format of shared weights: safetensors with a model card in the metadata; the JSON card of an ensemble."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from nuclei.errors import UserError
from nuclei.io.files import atomic_path

# A card is read without torch, which takes seconds to load: it is imported where there are tensors.
if TYPE_CHECKING:
    import torch


MAX_BYTES = 25_000_000
"""Larger files do not belong into a repository."""
SUFFIX = ".safetensors"


CARD_SUFFIX = ".json"
"""Of an ensemble's card, which stands alone."""


VERSION = 1
"""Of the format: the card's keys and what they mean."""


# the library writes several keys in an order that changes from run to run; one key keeps the bytes the same
KEY = "nuclei"


class Card(BaseModel):
    """What stands beside the tensors. `score` is the experiment's out of fold, on `images` images of `data`.

    `trained_on` are the ids of those that this very network saw, so that it is never scored on them unawares.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    name: str
    fold: int | None
    config: dict[str, Any]
    parameters: dict[str, Any]
    score: float
    images: int
    trained_on: list[str]
    data: str
    licence: str


class EnsembleCard(BaseModel):
    """Experiments whose weights lie in folders beside the file, by name, and how their maps are averaged.

    `shares` are those of the members by modality, under `all` those of any other image. `members` holds the members'
    own scores, by which it is seen whether a folder was made again since.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    members: dict[str, float]
    shares: dict[str, dict[str, float]]
    parameters: dict[str, Any]
    score: float
    images: int


def read_ensemble_card(path: Path | str) -> EnsembleCard:
    """The card of an ensemble, a JSON file.

    Raises:
        UserError: the file is missing, is no such card, or is of another version of the format.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such card of an ensemble; make one with `make weights EXP=ensemble`")
    try:
        card = EnsembleCard.model_validate_json(Path(path).read_bytes())
    except ValidationError as error:
        raise UserError(f"{path}: no card of an ensemble ({error}); fetch or make it again") from error
    _check_version(path, card.version)
    return card


def read_card(path: Path | str) -> Card:
    """The card of a file, its tensors left alone.

    Raises:
        UserError: as in `read_weights`.
    """
    with open_weights(path, "numpy") as file:
        return card_of(file, path)


@contextmanager
def open_weights(path: Path | str, framework: str) -> Iterator[Any]:
    """A file of weights, opened for a framework of safetensors: pt or numpy.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file of weights; make one with `make weights EXP=<experiment>`")
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable {SUFFIX} file ({error}); fetch or make it again") from error


def card_of(file: Any, path: Path | str) -> Card:
    """The card in the metadata of an opened file; `path` names it in errors, as in `read_card`."""
    text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise UserError(f"{path}: no weights of this project, it has no card; make some with `make weights`")
    try:
        values = json.loads(text)
        version = values["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: its card cannot be read ({error}); fetch or make it again") from error
    _check_version(path, version)
    try:
        return Card.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: its card is not as expected: {error}; fetch or make it again") from error


def _check_version(path: Path | str, version: Any) -> None:
    if version != VERSION:
        raise UserError(
            f"{path}: weights of format version {version}, this release reads version {VERSION}; take weights and "
            "code of the same release, or make them again from the checkpoints with `make weights`"
        )


def write_weights(path: Path | str, tensors: "Mapping[str, torch.Tensor]", card: Card) -> int:
    """Writes a file of weights and returns its bytes. The same weights give the same bytes.

    Raises:
        UserError: the file would be larger than MAX_BYTES.
    """
    from safetensors.torch import save

    content = save(
        {name: _halve(tensor) for name, tensor in tensors.items()},
        {KEY: json.dumps(card.model_dump(mode="json"), sort_keys=True)},
    )
    if len(content) > MAX_BYTES:
        raise UserError(
            f"{path}: {card.name} takes {len(content) / 1e6:.1f} MB in half precision, more than the "
            f"{MAX_BYTES / 1e6:.0f} MB that a repository should hold; ship a smaller network (model.width, "
            "model.encoder, model.decoder_channels), or pass the checkpoint on another way"
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return len(content)


def read_weights(path: Path | str) -> "tuple[Card, dict[str, torch.Tensor]]":
    """Card and tensors of a file.

    Raises:
        UserError: the file is missing, damaged, of something else, or of another version of the format.
    """
    with open_weights(path, "pt") as file:
        return card_of(file, path), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)


def _halve(tensor: "torch.Tensor") -> "torch.Tensor":
    """Half precision, but where the numbers are beyond it; whole numbers stay as they are."""
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point() or tensor.abs().max() > torch.finfo(torch.float16).max:
        return tensor
    return tensor.half()
