"""Writes an ensemble's card: folders of weights, ensemble weights, tuned post-processing."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--members", type=Path, nargs="+", required=True, help="folders of weights beside --out"
    )
    parser.add_argument("--cv", type=Path, required=True, help="cv.json of the ensemble")
    parser.add_argument(
        "--ensemble-weights", type=Path, required=True, help="ensemble_weights.json of the ensemble"
    )
    parser.add_argument("--unseen", type=Path, help="unseen.json with the ensemble's score")
    parser.add_argument("--out", type=Path, required=True, help="weights/ensemble.json")
    args = parser.parse_args()

    from nuclei.errors import UserError
    from nuclei.evaluation.ensemble_weights import read_ensemble_weights
    from nuclei.evaluation.scores import read_tuned_score
    from nuclei.evaluation.unseen import read_unseen
    from nuclei.inference.weights import find_files
    from nuclei.io.files import write_json
    from nuclei.models.weights_file import read_card
    from nuclei.publishing.model_card import make_ensemble_card

    apart = [folder for folder in args.members if folder.resolve().parent != args.out.resolve().parent]
    if apart:
        raise UserError(f"{apart[0]}: not beside {args.out}; an ensemble names the folders next to it")
    members = {folder.name: read_card(find_files(folder)[0]).score for folder in args.members}
    weights = read_ensemble_weights(args.ensemble_weights)
    unseen = read_unseen(args.unseen) if args.unseen else None
    card = make_ensemble_card(read_tuned_score(args.cv), weights, members, unseen)
    write_json(args.out, card.model_dump(mode="json"))
    print(f"{args.out}: {', '.join(members)} score {card.score:.4f} together")


if __name__ == "__main__":
    raise SystemExit(run(main))
