"""Weights to pass on: trained networks as small files that carry all that using them takes.

A file is safetensors, which holds numbers and cannot run anything: the tensors in half precision, and as metadata a
card in JSON with the network's config and the tuned post-processing. The files of a folder are the folds of one
experiment, and their answer is the mean of their maps, as everywhere here. A JSON file beside such folders makes an
ensemble of them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nuclei.arrays import UInt8Array
from nuclei.data.modality import ALL
from nuclei.io.files import sha256
from nuclei.io.probability_maps import mean_of_maps
from nuclei.models.weights_file import CARD_SUFFIX, SUFFIX, Card, EnsembleCard, read_card, read_ensemble_card
from nuclei.postprocessing.parameters import Parameters, Tuned

# A card is read without torch, which takes seconds to load: it is imported where there are tensors.
if TYPE_CHECKING:
    import torch

    from nuclei.inference.predictor import Predictor
from nuclei.errors import UserError
from nuclei.models.weights_file import read_weights

SHIPPED = Path(__file__).parents[3] / "weights"
"""Where a checkout of the project keeps weights, one folder an experiment."""


@dataclass(frozen=True)
class Weights:
    """Networks ready to predict, one a file; call them with an image to get the mean of their maps."""

    path: Path
    cards: list[Card]
    predictors: "list[Predictor]"
    shares: list[float]
    """How much each network counts in the mean, in relation to the others."""
    parameters: Parameters
    digest: str
    """Changes with the content of any of the files."""

    def __call__(self, image: UInt8Array) -> UInt8Array:
        """Foreground, border and core of an RGB image (H, W, 3) uint8: probability * 255, (3, H, W) uint8."""
        return mean_of_maps([predictor(image) for predictor in self.predictors], self.shares)


def load_weights(path: Path | str, device: "torch.device") -> Weights:
    """The networks of a file, of all files of a folder, or of the members of an ensemble (.json), on a device.

    Raises:
        UserError: as in `read_weights`; a folder without files, or with those of several experiments; an ensemble
            whose members are missing or were made again since.
    """
    path = Path(path)
    if path.suffix == CARD_SUFFIX:
        return _load_ensemble(path, device)
    from nuclei.inference.predictor import load_predictor

    files = find_files(path)
    cards, predictors = [], []
    for file in files:
        card, tensors = read_weights(file)
        cards.append(card)
        predictors.append(load_predictor({"config": card.config, "model": tensors}, str(file), device))
    if any((card.name, card.parameters) != (cards[0].name, cards[0].parameters) for card in cards):
        names = ", ".join(f"{file.name}: {card.name}" for file, card in zip(files, cards, strict=True))
        raise UserError(
            f"{path}: holds weights of different experiments or tunings ({names}); put each experiment into a folder "
            "of its own, or make the folder again with `make weights`"
        )
    digest = "-".join(sha256(file)[:16] for file in files)
    # the modality of one's own images is not known
    general = Tuned.from_dict(cards[0].parameters).general
    return Weights(path, cards, predictors, [1.0] * len(files), general, digest)


def _load_ensemble(path: Path, device: "torch.device") -> Weights:
    ensemble = read_ensemble(path)
    members = {name: load_weights(path.with_name(name), device) for name in ensemble.members}
    shares = ensemble.shares[ALL]
    return Weights(
        path,
        [card for member in members.values() for card in member.cards],
        [predictor for member in members.values() for predictor in member.predictors],
        [shares[name] / len(member.shares) for name, member in members.items() for _ in member.shares],
        Tuned.from_dict(ensemble.parameters).general,
        "-".join([sha256(path)[:16], *(member.digest for member in members.values())]),
    )


def read_ensemble(path: Path) -> EnsembleCard:
    """The card of an ensemble whose members lie beside it as they were when it was made.

    Raises:
        UserError: as in `read_ensemble_card`; members that are missing or were made again since.
    """
    card = read_ensemble_card(path)
    for name, score in card.members.items():
        folder = path.with_name(name)
        own = read_card(find_files(folder)[0]).score
        if own != score:
            raise UserError(
                f"{path}: was made with weights of {name} that score {score}, {folder} has {own}; make it again with "
                "`make weights EXP=ensemble`"
            )
    return card


def load_trained(path: Path, device: "torch.device") -> "Predictor":
    """The network of one file, be it a training's checkpoint (.pt) or weights to pass on (.safetensors).

    Raises:
        UserError: as in `load_checkpoint` and `read_weights`.
    """
    from nuclei.inference.predictor import load_predictor
    from nuclei.models.checkpoint_file import load_checkpoint

    if path.suffix != SUFFIX:
        return load_predictor(load_checkpoint(path), str(path), device)
    card, tensors = read_weights(path)
    return load_predictor({"config": card.config, "model": tensors}, str(path), device)


def read_tuned(path: Path | str) -> Tuned:
    """The tuned post-processing that a file carries, the files of a folder, or the card of an ensemble."""
    if Path(path).suffix == CARD_SUFFIX:
        return Tuned.from_dict(read_ensemble(Path(path)).parameters)
    return Tuned.from_dict(read_card(find_files(Path(path))[0]).parameters)


def find_files(path: Path) -> list[Path]:
    """The file itself, or the files of a folder in the order of their names, or of all members of an ensemble.

    Raises:
        UserError: there is none.
    """
    if path.suffix == CARD_SUFFIX:
        return [file for name in read_ensemble(path).members for file in find_files(path.with_name(name))]
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no {SUFFIX} file there; make some with `make weights EXP=<experiment>`")
    return files


def find_best(root: Path = SHIPPED) -> Path:
    """The folder under `root` whose experiment has the highest score out of fold.

    Raises:
        UserError: no folder holds weights.
    """
    scores = {file.parent: read_card(file).score for file in sorted(root.glob(f"*/*{SUFFIX}"))}
    if not scores:
        raise UserError(f"{root}: no weights there; name some (WEIGHTS=<file or folder>) or train and `make weights`")
    return max(scores, key=lambda folder: scores[folder])
