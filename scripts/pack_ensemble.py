"""Writes the card that makes an ensemble of folders of weights: their shares, and the post-processing tuned for it."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=Path, nargs="+", required=True, help="folders of weights beside --out")
    parser.add_argument("--cv", type=Path, required=True, help="cv.json of the ensemble")
    parser.add_argument("--shares", type=Path, required=True, help="shares.json of the ensemble")
    parser.add_argument("--out", type=Path, required=True, help="weights/ensemble.json")
    arguments = parser.parse_args()

    from nuclei.inference.weights import find_files
    from nuclei.io.files import read_json, write_json
    from nuclei.models.weights_file import read_card
    from nuclei.publishing.model_card import make_ensemble_card

    apart = [folder for folder in arguments.members if folder.resolve().parent != arguments.out.resolve().parent]
    if apart:
        raise ValueError(f"{apart[0]}: not beside {arguments.out}; an ensemble names the folders next to it")
    members = {folder.name: read_card(find_files(folder)[0]).score for folder in arguments.members}
    card = make_ensemble_card(read_json(arguments.cv), read_json(arguments.shares), members)
    write_json(arguments.out, card.model_dump(mode="json"))
    print(f"{arguments.out}: {', '.join(members)} score {card.score:.4f} together")


if __name__ == "__main__":
    raise SystemExit(run(main))
