"""The file format of shared weights: safetensors with a model card; the JSON card of an ensemble.

A card may come from a stranger: names, numbers, lengths and nesting are checked when it is read,
before a network is built.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from safetensors import SafetensorError, safe_open

from nuclei.config import PredictionConfig
from nuclei.data.modality import ALL
from nuclei.data.set_provenance import SetProvenance
from nuclei.errors import UserError
from nuclei.io.files import atomic_path
from nuclei.io.names import Name
from nuclei.io.records import Record, parse_json, read_values, rename_keys, validate_record
from nuclei.postprocessing.parameters import TunedRecord

# A card is read without torch, which takes seconds to load: it is imported where there are tensors.
if TYPE_CHECKING:
    import torch

MAX_BYTES = 25_000_000
"""Larger files do not belong into a repository."""
SUFFIX = ".safetensors"
CARD_SUFFIX = ".json"
"""Of an ensemble's card, which is a file of its own."""
VERSION: Literal[1] = 1
"""Of the format: the card's keys and what they mean."""
MAX_SETTING = 4096
"""Largest number that a card may give for a setting of the network or of the prediction."""
MAX_VALUES = 32
"""Longest list that a card's config may hold."""

# The library writes several keys in an order that changes from run to run; one key keeps the bytes
# the same.
_KEY = "nuclei"
_REMEDY = "fetch or make it again"
_RENAMED = {"shares": "weights"}
_OPTIONAL = ("unseen", "external", "prediction")

Score = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(gt=0, le=1e6)]


class UnseenScore(Record):
    """Score on sources that training never saw, from trainings that hold out whole sources.

    `low` and `high` hold 95% of the means over resampled sources.
    """

    score: Score
    low: Score
    high: Score
    images: Count
    sources: Count


class CardRecord(Record):
    """Base of cards: unknown values are left out, so that older releases can read the card."""

    unseen: UnseenScore | None = None
    """Where the experiment was also trained with whole sources held out."""

    @model_serializer(mode="wrap")
    def _leave_out_unknown(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialise(self)
        return {key: value for key, value in values.items() if key not in _OPTIONAL or value}


class Card(CardRecord):
    """What is known of the network in a file of weights.

    `score` is the experiment's out-of-fold score on `images` images of `data`. `trained_on` holds
    the ids of the images that this network was trained on, so that it is never scored on them.
    """

    version: Literal[1]
    name: Name
    fold: Count | None
    config: dict[str, Any]
    """As a checkpoint carries it, old keys included; `config_files.parse_config` reads it."""
    parameters: TunedRecord
    score: Score
    images: Count
    trained_on: list[str]
    data: str
    licence: str
    external: list[SetProvenance] = Field(default_factory=list)
    """External data sets that the network was trained on too."""

    @model_validator(mode="after")
    def _has_a_config_of_its_own_that_can_be_built(self) -> Self:
        if self.config.get("name") != self.name:
            raise UserError(f"config.name = {self.config.get('name')!r:.60}, expected the card's {self.name!r}")
        _check_settings(self.config, "config")
        for section in ("model", "prediction"):
            _check_settings(self.config.get(section), f"config.{section}", MAX_SETTING)
        return self


class EnsembleCard(CardRecord):
    """Experiments whose weights lie in folders beside the card, and how their maps are averaged.

    `members` maps each folder's name to its score when the card was made, by which a folder that
    was made again is noticed. `weights` are the ensemble weights of the members by modality, under
    `all` those of any other image. `prediction` replaces that of every network.
    """

    version: Literal[1]
    members: Annotated[dict[Name, Score], Field(min_length=1, max_length=MAX_VALUES)]
    weights: dict[Name, dict[Name, Weight]]
    parameters: TunedRecord
    score: Score
    images: Count
    prediction: PredictionConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, values: Any) -> Any:
        return rename_keys(values, _RENAMED, "ensemble card") if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _has_a_weight_for_each_member(self) -> Self:
        if ALL not in self.weights:
            raise UserError(
                f"weights: {ALL!r} is missing, which holds for modalities without weights of their own"
            )
        for modality, weights in self.weights.items():
            if weights.keys() != self.members.keys():
                raise UserError(
                    f"weights.{modality} is for {sorted(weights)}, expected one for each of "
                    f"{sorted(self.members)}"
                )
        if self.prediction:
            _check_settings(self.prediction.model_dump(), "prediction", MAX_SETTING)
        return self


def read_ensemble_card(path: Path | str) -> EnsembleCard:
    """The card of an ensemble, a JSON file.

    Raises:
        UserError: the file is missing, is no such card, or is of another version of the format.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such card of an ensemble; make one with `make weights EXP=ensemble`")
    values = read_values(path, _REMEDY)
    _check_version(path, values)
    return validate_record(values, EnsembleCard, f"{path}: no card of an ensemble", _REMEDY)


def read_card(path: Path | str) -> Card:
    """The card of a file, without its tensors. Raises as `read_weights`."""
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
        raise UserError(f"{path}: not a readable {SUFFIX} file ({error}); {_REMEDY}") from error


def card_of(file: Any, path: Path | str) -> Card:
    """The card in the metadata of an opened file; `path` names it in errors, as in `read_card`."""
    text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise UserError(f"{path}: no weights of this project, it has no card; make some with `make weights`")
    values = parse_json(text, f"{path}: its card", _REMEDY)
    _check_version(path, values)
    return validate_record(values, Card, f"{path}: its card", _REMEDY)


def write_weights(path: Path | str, tensors: "Mapping[str, torch.Tensor]", card: Card) -> int:
    """Writes a file of weights and returns its size in bytes. The same weights give the same bytes.

    Raises:
        UserError: the file would be larger than MAX_BYTES.
    """
    from safetensors.torch import save

    content = save(
        {name: _to_half(tensor) for name, tensor in tensors.items()},
        {_KEY: json.dumps(card.model_dump(mode="json"), sort_keys=True)},
    )
    if len(content) > MAX_BYTES:
        raise UserError(
            f"{path}: {card.name} takes {len(content) / 1e6:.1f} MB in half precision, more than "
            f"the {MAX_BYTES / 1e6:.0f} MB that a repository should hold; ship a smaller network "
            "(model.width, model.encoder, model.decoder_channels), or pass on the checkpoint in "
            "another way"
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return len(content)


def read_weights(path: Path | str) -> "tuple[Card, dict[str, torch.Tensor]]":
    """Card and tensors of a file.

    Raises:
        UserError: the file is missing, damaged, not of this project or of another version of the
            format; a tensor holds a number that is not finite.
    """
    with open_weights(path, "pt") as file:
        card = card_of(file, path)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    check_finite(tensors, path)
    return card, tensors


def check_finite(tensors: "Mapping[str, torch.Tensor]", path: Path | str) -> None:
    """Refuses NaN and infinity, with which a network predicts nothing but NaN.

    Raises:
        UserError: names the first such tensor.
    """
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise UserError(f"{path}: the tensor {name[:100]!r} holds NaN or infinity; {_REMEDY}")


def _check_version(path: Path | str, values: Any) -> None:
    version = values.get("version") if isinstance(values, dict) else None
    if isinstance(version, int) and version != VERSION:
        raise UserError(
            f"{path}: weights of format version {version}, this release reads version {VERSION}; "
            "take weights and code of the same release, or make them again from the checkpoints "
            "with `make weights`"
        )


def _check_settings(value: Any, place: str, largest: float = math.inf) -> None:
    """Refuses numbers that are not finite or exceed `largest`, and long lists, at any depth."""
    if isinstance(value, dict | list):
        if isinstance(value, list) and len(value) > MAX_VALUES:
            raise UserError(f"{place} has {len(value)} values, expected at most {MAX_VALUES}")
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            _check_settings(inner, f"{place}.{key:.40}" if isinstance(key, str) else place, largest)
    elif isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= largest):
        raise UserError(f"{place} = {value:.6g}, expected a finite number of at most {largest:g}")


def _to_half(tensor: "torch.Tensor") -> "torch.Tensor":
    """Half precision, unless values exceed its range; integer tensors stay as they are."""
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point() or tensor.abs().max() > torch.finfo(torch.float16).max:
        return tensor
    return tensor.half()
