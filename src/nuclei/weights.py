"""Weights to pass on: trained networks as small files that carry all that using them takes.

A file is safetensors, which holds numbers and cannot run anything: the tensors in half precision, and as metadata a
card in JSON with the network's config and the tuned post-processing. The files of a folder are the folds of one
experiment, and their answer is the mean of their maps, as everywhere here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from nuclei.artifacts import UInt8Array, atomic_path, sha256, write_text
from nuclei.config import Config, parse_config
from nuclei.ensemble import mean_of_maps
from nuclei.parameters import Parameters, Tuned

# A card is read without torch, which takes seconds to load: it is imported where there are tensors.
if TYPE_CHECKING:
    import torch

    from nuclei.inference import Predictor

VERSION = 1
"""Of the format: the card's keys and what they mean."""
MAX_BYTES = 25_000_000
"""Larger files do not belong into a repository."""
SUFFIX = ".safetensors"
SHIPPED = Path(__file__).parents[2] / "weights"
"""Where a checkout of the project keeps weights, one folder an experiment."""

# the library writes several keys in an order that changes from run to run; one key keeps the bytes the same
_KEY = "nuclei"


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


@dataclass(frozen=True)
class Weights:
    """Networks ready to predict, one a file; call them with an image to get the mean of their maps."""

    path: Path
    cards: list[Card]
    predictors: "list[Predictor]"
    parameters: Parameters
    digest: str
    """Changes with the content of any of the files."""

    def __call__(self, image: UInt8Array) -> UInt8Array:
        """Foreground, border and core of an RGB image (H, W, 3) uint8: probability * 255, (3, H, W) uint8."""
        return mean_of_maps([predictor(image) for predictor in self.predictors])


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


def write_weights(path: Path | str, tensors: "Mapping[str, torch.Tensor]", card: Card) -> int:
    """Writes a file of weights and returns its bytes. The same weights give the same bytes.

    Raises:
        ValueError: the file would be larger than MAX_BYTES.
    """
    from safetensors.torch import save

    content = save(
        {name: _halve(tensor) for name, tensor in tensors.items()},
        {_KEY: json.dumps(card.model_dump(mode="json"), sort_keys=True)},
    )
    if len(content) > MAX_BYTES:
        raise ValueError(
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
        ValueError: the file is missing, damaged, of something else, or of another version of the format.
    """
    with _open(path, "pt") as file:
        return _read_card(file, path), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)


def read_card(path: Path | str) -> Card:
    """The card of a file, its tensors left alone.

    Raises:
        ValueError: as in `read_weights`.
    """
    with _open(path, "numpy") as file:
        return _read_card(file, path)


@contextmanager
def _open(path: Path | str, framework: str) -> Iterator[Any]:
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file of weights; make one with `make weights EXP=<experiment>`")
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable {SUFFIX} file ({error}); fetch or make it again") from error


def load_weights(path: Path | str, device: "torch.device") -> Weights:
    """The networks of a file, or of all files of a folder, on a device.

    Raises:
        ValueError: as in `read_weights`; a folder without files, or with those of several experiments.
    """
    from nuclei.inference import load_predictor

    path = Path(path)
    files = find_files(path)
    cards, predictors = [], []
    for file in files:
        card, tensors = read_weights(file)
        cards.append(card)
        predictors.append(load_predictor({"config": card.config, "model": tensors}, str(file), device))
    if any((card.name, card.parameters) != (cards[0].name, cards[0].parameters) for card in cards):
        names = ", ".join(f"{file.name}: {card.name}" for file, card in zip(files, cards, strict=True))
        raise ValueError(
            f"{path}: holds weights of different experiments or tunings ({names}); put each experiment into a folder "
            "of its own, or make the folder again with `make weights`"
        )
    digest = "-".join(sha256(file)[:16] for file in files)
    # the modality of one's own images is not known
    return Weights(path, cards, predictors, Tuned.from_dict(cards[0].parameters).general, digest)


def load_trained(path: Path, device: "torch.device") -> "Predictor":
    """The network of one file, be it a training's checkpoint (.pt) or weights to pass on (.safetensors).

    Raises:
        ValueError: as in `load_checkpoint` and `read_weights`.
    """
    from nuclei.inference import load_checkpoint, load_predictor

    if path.suffix != SUFFIX:
        return load_predictor(load_checkpoint(path), str(path), device)
    card, tensors = read_weights(path)
    return load_predictor({"config": card.config, "model": tensors}, str(path), device)


def read_tuned(path: Path | str) -> Tuned:
    """The tuned post-processing that a file carries, or the files of a folder."""
    return Tuned.from_dict(read_card(find_files(Path(path))[0]).parameters)


def find_files(path: Path) -> list[Path]:
    """The file itself, or the files of a folder in the order of their names.

    Raises:
        ValueError: there is none.
    """
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path}: no {SUFFIX} file there; make some with `make weights EXP=<experiment>`")
    return files


def find_best(root: Path = SHIPPED) -> Path:
    """The folder under `root` whose experiment has the highest score out of fold.

    Raises:
        ValueError: no folder holds weights.
    """
    scores = {file.parent: read_card(file).score for file in sorted(root.glob(f"*/*{SUFFIX}"))}
    if not scores:
        raise ValueError(f"{root}: no weights there; name some (WEIGHTS=<file or folder>) or train and `make weights`")
    return max(scores, key=lambda folder: scores[folder])


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


def _halve(tensor: "torch.Tensor") -> "torch.Tensor":
    """Half precision, but where the numbers are beyond it; whole numbers stay as they are."""
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point() or tensor.abs().max() > torch.finfo(torch.float16).max:
        return tensor
    return tensor.half()


def _read_card(file: Any, path: Path | str) -> Card:
    text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise ValueError(f"{path}: no weights of this project, it has no card; make some with `make weights`")
    try:
        values = json.loads(text)
        version = values["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: its card cannot be read ({error}); fetch or make it again") from error
    if version != VERSION:
        raise ValueError(
            f"{path}: weights of format version {version}, this release reads version {VERSION}; take weights and "
            "code of the same release, or make them again from the checkpoints with `make weights`"
        )
    try:
        return Card.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path}: its card is not as expected: {error}; fetch or make it again") from error
