"""What a training takes over from an earlier run: its weights, or its labels of the test images."""

import logging
from pathlib import Path

from torch import nn

from nuclei.artifacts import Images, LabelMap, Maps, read_json
from nuclei.cards import SUFFIX
from nuclei.inference import load_checkpoint
from nuclei.parameters import Tuned
from nuclei.postprocessing import measure_certainty, segment_maps
from nuclei.splits import Fold
from nuclei.weights import SHIPPED, read_weights

log = logging.getLogger(__name__)

SURE = 0.85
"""Certainty of the maps of a test image from which on it is learned from."""


def find_start(runs: Path, experiment: str, fold: int) -> Path:
    """The checkpoint of a run of this machine, else the file that the project ships of it."""
    trained, shipped = runs / experiment / f"fold_{fold}" / "best.pt", SHIPPED / experiment / f"fold_{fold}{SUFFIX}"
    return shipped if shipped.is_file() and not trained.is_file() else trained


def load_start(model: nn.Module, path: Path, fold: Fold) -> None:
    """Fills the network with the weights of an earlier run: its checkpoint, or a file of weights.

    Raises:
        ValueError: no checkpoint there; it saw images that this fold holds out; it is of another network.
    """
    if path.suffix == SUFFIX:
        card, tensors = read_weights(path)
        trained_on = card.trained_on
    else:
        checkpoint = load_checkpoint(path)
        trained_on, tensors = checkpoint["trained_on"], checkpoint["model"]
    _check_unseen("start", path, trained_on, fold)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f"training.start: {path} is of another network ({str(error).splitlines()[0]}); give [model] the values of "
            "that run's config"
        ) from error
    log.info("starting from %s", path)


def label_test_images(runs: Path, experiment: str, fold: Fold, images: Images) -> dict[str, LabelMap]:
    """Label maps (H, W) of the test images by id, as the experiment's network of the same fold sees them.

    They are its test.npz, segmented with the parameters that cv.json has for this fold, so that neither has seen what
    the fold holds out. Images of which it is not sure are left out: what it misses would be learned as background.

    Raises:
        ValueError: no such run, or not predicted or tuned yet; it saw images that this fold holds out.
    """
    folder = runs / experiment / f"fold_{fold.number}"
    _check_unseen("pseudo", folder / "best.pt", load_checkpoint(folder / "best.pt")["trained_on"], fold)
    cv = runs / experiment / "cv.json"
    if not cv.is_file():
        raise ValueError(f"training.pseudo: {cv} is missing; run `make {cv}`, which tunes the experiment")
    tuned = Tuned.from_dict(read_json(cv)["fold"][str(fold.number)]["parameters"])
    archive, ids, labelled = Maps(folder / "test.npz"), images.ids("test"), {}
    for image_id in ids:
        maps = archive[image_id]
        if measure_certainty(maps) >= SURE:
            labelled[image_id] = segment_maps(maps, tuned.of(images.modality(image_id)))
    log.info("%d of %d test images labelled by %s", len(labelled), len(ids), folder)
    return labelled


def _check_unseen(key: str, path: Path, trained_on: list[str], fold: Fold) -> None:
    seen = sorted(set(trained_on) & set(fold.validation))
    if seen:
        raise ValueError(
            f"training.{key}: {path} was trained on {len(seen)} images that fold {fold.number} holds out ({seen[0]} "
            "...), so its score would flatter; take a run of the same splits"
        )
