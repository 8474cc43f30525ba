"""Loads shared weights: trained networks as small files that carry all that prediction needs.

A file is safetensors, a format that holds tensors and runs no code: tensors in half precision and a
JSON card with the network's config and the tuned post-processing. The files of a folder are the
folds of one experiment; their maps are averaged. A JSON card beside such folders makes an ensemble
of them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nuclei.arrays import UInt8Array
from nuclei.config import PredictionConfig
from nuclei.data.modality import ALL
from nuclei.errors import UserError
from nuclei.io.files import sha256
from nuclei.io.names import check_name
from nuclei.io.probability_maps import mean_of_maps
from nuclei.models.weights_file import (
    CARD_SUFFIX,
    SUFFIX,
    Card,
    EnsembleCard,
    read_card,
    read_ensemble_card,
    read_weights,
)
from nuclei.postprocessing.parameters import Parameters, Tuned

# A card is read without torch, which takes seconds to load: it is imported where there are tensors.
if TYPE_CHECKING:
    import torch

    from nuclei.inference.predictor import Predictor

SHIPPED = Path(__file__).parents[3] / "weights"
"""Where a checkout of the project keeps weights, one folder an experiment."""
PACKAGED = Path(__file__).parents[1] / "weights"
"""Where an installed package carries networks of one file each."""


@dataclass(frozen=True)
class Weights:
    """Networks ready to predict, one a file; calling them with an image averages their maps."""

    path: Path
    cards: list[Card]
    predictors: "list[Predictor]"
    weights: list[float]
    """Ensemble weight of each network; only their ratios matter."""
    parameters: Parameters
    digest: str
    """Changes with the content of any of the files."""

    def __call__(self, image: UInt8Array) -> UInt8Array:
        """Maps (3, H, W) uint8, probability * 255, of an RGB image (H, W, 3) uint8."""
        return mean_of_maps([predictor(image) for predictor in self.predictors], self.weights)


def load_weights(
    path: Path | str, device: "torch.device", prediction: PredictionConfig | None = None
) -> Weights:
    """The networks of a file, of all files of a folder, or of an ensemble's card (.json).

    They predict as their cards say, or as `prediction` does, or the ensemble's card.

    Raises:
        UserError: as in `read_weights`; a folder without files, or with those of several
            experiments; an ensemble whose members are missing or were made again since.
    """
    path = Path(path)
    if path.suffix == CARD_SUFFIX:
        return _load_ensemble(path, device)
    files = find_files(path)
    loaded = [_load_file(file, device, prediction) for file in files]
    cards = [card for card, _ in loaded]
    if any((card.name, card.parameters) != (cards[0].name, cards[0].parameters) for card in cards):
        names = ", ".join(f"{file.name}: {card.name}" for file, card in zip(files, cards, strict=True))
        raise UserError(
            f"{path}: holds weights of different experiments or tunings ({names}); put each experiment into a folder "
            "of its own, or make the folder again with `make weights`"
        )
    digest = "-".join(sha256(file)[:16] for file in files)
    # The modality of a user's own images is not known, so the general parameters hold.
    general = cards[0].parameters.general
    return Weights(path, cards, [predictor for _, predictor in loaded], [1.0] * len(files), general, digest)


def _load_ensemble(path: Path, device: "torch.device") -> Weights:
    ensemble = read_ensemble(path)
    members = {
        name: load_weights(find_member(path, name), device, ensemble.prediction) for name in ensemble.members
    }
    weights = ensemble.weights[ALL]
    return Weights(
        path,
        [card for member in members.values() for card in member.cards],
        [predictor for member in members.values() for predictor in member.predictors],
        [weights[name] / len(member.weights) for name, member in members.items() for _ in member.weights],
        ensemble.parameters.general,
        "-".join([sha256(path)[:16], *(member.digest for member in members.values())]),
    )


def _load_file(
    path: Path, device: "torch.device", prediction: PredictionConfig | None = None
) -> "tuple[Card, Predictor]":
    from nuclei.inference.predictor import load_predictor

    card, tensors = read_weights(path)
    asked = {"prediction": prediction.model_dump(mode="json")} if prediction else {}
    return card, load_predictor({"config": card.config | asked, "model": tensors}, str(path), device)


def read_ensemble(path: Path) -> EnsembleCard:
    """The card of an ensemble whose members lie beside it as they were when it was made.

    Raises:
        UserError: as in `read_ensemble_card`; members that are missing or were made again since.
    """
    card = read_ensemble_card(path)
    for name, score in card.members.items():
        folder = find_member(path, name)
        own = read_card(find_files(folder)[0]).score
        if own != score:
            raise UserError(
                f"{path}: was made with weights of {name} that score {score}, {folder} has {own}; make it again with "
                "`make weights EXP=ensemble`"
            )
    return card


def load_trained(path: Path, device: "torch.device", ensemble: Path | None = None) -> "Predictor":
    """The network of one file: a checkpoint (.pt) or shared weights (.safetensors).

    Shared weights predict as the card of an `ensemble` says, where it is given and does.

    Raises:
        UserError: as in `load_checkpoint` and `read_weights`.
    """
    from nuclei.inference.predictor import load_predictor
    from nuclei.models.checkpoint_file import load_checkpoint

    if path.suffix != SUFFIX:
        return load_predictor(load_checkpoint(path), str(path), device)
    prediction = read_ensemble(ensemble).prediction if ensemble else None
    return _load_file(path, device, prediction)[1]


def read_tuned(path: Path | str) -> Tuned:
    """The tuned post-processing of a file of weights, a folder of them, or an ensemble's card."""
    if Path(path).suffix == CARD_SUFFIX:
        return read_ensemble(Path(path)).parameters
    return read_card(find_files(Path(path))[0]).parameters


def find_files(path: Path) -> list[Path]:
    """The file itself, the files of a folder sorted by name, or those of an ensemble's members.

    Raises:
        UserError: there is none; a name in the folder or on the card is unsafe.
    """
    if path.suffix == CARD_SUFFIX:
        return [file for name in read_ensemble(path).members for file in find_files(find_member(path, name))]
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no {SUFFIX} file there; make some with `make weights EXP=<experiment>`")
    for file in files if path.is_dir() else []:
        check_name(file.name)
    return files


def list_files(path: Path) -> dict[str, Path]:
    """What to copy for weights to work elsewhere: files by their path beside the weights, these themselves included.

    Networks of the package are left out, since they come with the code.
    """
    files = find_files(path)
    if path.suffix != CARD_SUFFIX:
        return {file.relative_to(path.parent).as_posix(): file for file in files}
    own = [file for file in files if file.parent != PACKAGED]
    return {path.name: path, **{f"{file.parent.name}/{file.name}": file for file in own}}


def find_member(card: Path, name: str) -> Path:
    """The weights of a member of an ensemble: a folder beside its card, or the file of that name in the package."""
    folder, packaged = card.with_name(name), PACKAGED / f"{name}{SUFFIX}"
    return packaged if packaged.is_file() and not folder.is_dir() else folder


def find_best(root: Path = SHIPPED, packaged: Path = PACKAGED) -> Path:
    """The network in the package, which is for all images; without one the folder under `root` that scores best.

    Of several the one with the highest score on its card is taken.

    Raises:
        UserError: neither holds weights.
    """
    files = {file: file for file in sorted(packaged.glob(f"*{SUFFIX}"))}
    files = files or {file.parent: file for file in sorted(root.glob(f"*/*{SUFFIX}"))}
    if not files:
        raise UserError(
            f"{root}: no weights there; name some (WEIGHTS=<file or folder>) or train and `make weights`"
        )
    scores = {path: read_card(file).score for path, file in files.items()}
    return max(scores, key=lambda path: scores[path])
