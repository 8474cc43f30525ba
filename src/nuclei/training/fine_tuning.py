"""Fine-tuning: a training that starts from the weights of an earlier experiment."""

import logging
from pathlib import Path

from torch import nn

from nuclei.data.splits import Fold
from nuclei.errors import UserError
from nuclei.inference.weights import SHIPPED
from nuclei.models.checkpoint_file import find_result, load_checkpoint
from nuclei.models.weights_file import SUFFIX, read_weights

log = logging.getLogger(__name__)


def find_start(runs: Path, experiment: str, fold: int) -> Path:
    """Checkpoint of the experiment's fold under `runs`, or else the shipped file of weights."""
    trained = find_result(runs / experiment / f"fold_{fold}")
    shipped = SHIPPED / experiment / f"fold_{fold}{SUFFIX}"
    return shipped if shipped.is_file() and not trained.is_file() else trained


def load_start(model: nn.Module, path: Path, fold: Fold) -> None:
    """Loads an earlier run's weights into the network, from a checkpoint or a file of weights.

    Raises:
        UserError: the file is missing; it was trained on images that this fold holds out; it is of
            another network.
    """
    if path.suffix == SUFFIX:
        card, tensors = read_weights(path)
        trained_on = card.trained_on
    else:
        checkpoint = load_checkpoint(path)
        trained_on, tensors = checkpoint["trained_on"], checkpoint["model"]
    check_unseen("start", path, trained_on, fold)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"training.start: {path} is of another network ({str(error).splitlines()[0]}); copy "
            "the [model] settings of that run's config"
        ) from error
    log.info("starting from %s", path)


def check_unseen(key: str, path: Path, trained_on: list[str], fold: Fold) -> None:
    """Refuses a network that was trained on held-out images; `key` is the setting that names it.

    Raises:
        UserError: with the number of such images and the first of them.
    """
    seen = sorted(set(trained_on) & set(fold.validation))
    if seen:
        raise UserError(
            f"training.{key}: {path} was trained on {len(seen)} images that fold {fold.number} "
            f"holds out ({seen[0]} ...), so the score would be too high; use a run with the same "
            "splits"
        )
