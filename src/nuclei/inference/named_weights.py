"""Shared weights by their name: those of a checkout, and those that an installed package carries."""

from pathlib import Path
from typing import TYPE_CHECKING

from nuclei.errors import UserError
from nuclei.inference.weights import PACKAGED, SHIPPED, find_best, find_files, load_trained
from nuclei.models.weights_file import CARD_SUFFIX, SUFFIX

if TYPE_CHECKING:
    from torch import nn


def list_names() -> list[str]:
    """Names that `find_weights` knows: experiments and ensembles of the checkout, files in the package."""
    folders = {file.parent.name for file in SHIPPED.glob(f"*/*{SUFFIX}")}
    cards = {file.stem for file in SHIPPED.glob(f"*{CARD_SUFFIX}")}
    return sorted(folders | cards | {file.stem for file in PACKAGED.glob(f"*{SUFFIX}")})


def find_weights(name: Path | str | None = None) -> Path:
    """The path of weights: a file or folder that exists, a name of `list_names`, or the best there is.

    Raises:
        UserError: neither a path nor a known name.
    """
    if name is None:
        return find_best()
    candidates = [Path(name)]
    if Path(name).name == str(name):
        candidates += [
            SHIPPED / name,
            SHIPPED / f"{name}{CARD_SUFFIX}",
            PACKAGED / f"{name}{SUFFIX}",
        ]
    for path in candidates:
        if path.is_file() or path.is_dir():
            return path
    raise UserError(
        f"{name}: no such weights; give a file, a folder, or one of {', '.join(list_names()) or '(none)'}"
    )


def load(name: Path | str | None = None, device: str = "cpu") -> "nn.Module":
    """The first network of weights as a torch module in evaluation mode.

    It takes normalised images (B, 3, H, W) float32 and gives logits of foreground, border and core
    (B, 3, H, W).

    Raises:
        UserError: as in `find_weights`; a file that cannot be read.
    """
    from nuclei.devices import choose_device

    network: nn.Module = load_trained(find_files(find_weights(name))[0], choose_device(device)).model
    return network
