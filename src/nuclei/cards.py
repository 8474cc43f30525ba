"""The card that a file of weights carries, what the network is, how well it does and what it was trained on; and that
of an ensemble, which names folders of such files beside it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from nuclei.artifacts import write_text
from nuclei.config import Config
from nuclei.ensemble import ALL
from nuclei.experiments import parse_config
from nuclei.parameters import Tuned

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


def make_ensemble_card(cv: Mapping[str, Any], shares: Mapping[str, Any], members: Mapping[str, float]) -> EnsembleCard:
    """The card of an ensemble from its `cv.json` and `shares.json`; `members` are the scores on the members' cards.

    Raises:
        ValueError: shares of other members; a `cv.json` without tuned parameters.
    """
    if any(set(one) != set(members) for one in shares["shares"].values()) or not cv.get("parameters"):
        raise ValueError(
            f"the weights are of {sorted(members)}, the shares of {sorted(shares['shares'][ALL])}, cv.json of "
            f"{cv['experiment']}; give the files of one ensemble, cv.json with tuned parameters"
        )
    tuned = Tuned.from_dict(cv["parameters"]).to_dict()
    return EnsembleCard(
        version=VERSION,
        members=dict(members),
        shares=shares["shares"],
        parameters=tuned,
        score=cv["score"],
        images=cv["n_images"],
    )


def read_ensemble_card(path: Path | str) -> EnsembleCard:
    """The card of an ensemble, a JSON file.

    Raises:
        ValueError: the file is missing, is no such card, or is of another version of the format.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such card of an ensemble; make one with `make weights EXP=ensemble`")
    try:
        card = EnsembleCard.model_validate_json(Path(path).read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path}: no card of an ensemble ({error}); fetch or make it again") from error
    _check_version(path, card.version)
    return card


def make_card(checkpoint: Mapping[str, Any], cv: Mapping[str, Any], data: str, licence: str) -> Card:
    """The card of a checkpoint and of its experiment's `cv.json`.

    Raises:
        ValueError: the two are of different experiments; a `cv.json` without tuned parameters.
    """
    config = parse_config(checkpoint["config"], "checkpoint")
    if cv["experiment"] != config.name or not cv.get("parameters"):
        raise ValueError(
            f"the checkpoint is of {config.name}, cv.json of {cv['experiment']} with parameters "
            f"{cv.get('parameters')}; give the cv.json that the tuning wrote for this experiment"
        )
    return Card(
        version=VERSION,
        name=config.name,
        fold=checkpoint.get("fold"),
        config=config.model_dump(mode="json"),
        parameters=Tuned.from_dict(cv["parameters"]).to_dict(),
        score=cv["score"],
        images=cv["n_images"],
        trained_on=sorted(checkpoint["trained_on"]),
        data=data,
        licence=licence,
    )


def read_card(path: Path | str) -> Card:
    """The card of a file, its tensors left alone.

    Raises:
        ValueError: as in `read_weights`.
    """
    with open_weights(path, "numpy") as file:
        return card_of(file, path)


@contextmanager
def open_weights(path: Path | str, framework: str) -> Iterator[Any]:
    """A file of weights, opened for a framework of safetensors: pt or numpy.

    Raises:
        ValueError: the file is missing or cannot be read.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file of weights; make one with `make weights EXP=<experiment>`")
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable {SUFFIX} file ({error}); fetch or make it again") from error


def write_page(path: Path | str, cards: Sequence[Card], sizes: Sequence[int]) -> None:
    """Writes the README.md of a folder of weights: what they are, how well they do, how to use them."""
    from nuclei.models import OURS

    card = cards[0]
    config = Config.model_validate(card.config)
    encoder = "" if config.model.architecture in OURS else f" with encoder {config.model.encoder}"
    folds = ", ".join(str(each.fold) for each in cards)
    general = Tuned.from_dict(card.parameters).general.to_dict()
    write_text(
        path,
        f"""# {card.name}

Weights of `configs/{card.name}.toml` ({config.model.architecture}{encoder}), one file a fold (held out: {folds}), in
half precision, {max(sizes) / 1e6:.1f} MB at most. Their answer is the mean of their maps.

| | |
|---|---|
| trained on | {card.data}, {card.images} images in {len(cards)} folds |
| score out of fold | {card.score:.4f} (mean average precision over IoU 0.50 to 0.95; tuned on the other folds) |
| post-processing | {", ".join(f"{name} {value:g}" for name, value in general.items())} |
| licence of the data | {card.licence} |
| format | safetensors, version {card.version} of the card in its metadata |

```
make segment IMAGES=my_images OUT=my_results WEIGHTS=weights/{card.name}   # your own images
make submission WEIGHTS=weights/{card.name}                                # the competition's, without training
```

```python
from nuclei import segment

label_map = segment("image.tif", weights="weights/{card.name}")
```
""",
    )


def card_of(file: Any, path: Path | str) -> Card:
    """The card in the metadata of an opened file; `path` names it in errors, as in `read_card`."""
    text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise ValueError(f"{path}: no weights of this project, it has no card; make some with `make weights`")
    try:
        values = json.loads(text)
        version = values["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: its card cannot be read ({error}); fetch or make it again") from error
    _check_version(path, version)
    try:
        return Card.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path}: its card is not as expected: {error}; fetch or make it again") from error


def _check_version(path: Path | str, version: Any) -> None:
    if version != VERSION:
        raise ValueError(
            f"{path}: weights of format version {version}, this release reads version {VERSION}; take weights and "
            "code of the same release, or make them again from the checkpoints with `make weights`"
        )
