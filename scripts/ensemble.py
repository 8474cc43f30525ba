"""Averages maps image by image: the folds of a run, or the runs of an ensemble."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=Path, nargs="+", required=True, help="maps to average, .npz")
    parser.add_argument("--members", nargs="+", help="experiment of each input (default: its folder's name)")
    parser.add_argument("--out", type=Path, required=True, help="output: the averaged maps, .npz")
    parser.add_argument("--index", type=Path, required=True, help="data/processed/index.csv")
    parser.add_argument(
        "--subset", choices=("train", "test"), required=True, help="whose images must all be in the inputs"
    )
    weighing = parser.add_mutually_exclusive_group()
    weighing.add_argument("--weights", type=float, nargs="+", help="one for each input (default: equal)")
    weighing.add_argument(
        "--ensemble-weights", type=Path, help="ensemble_weights.json or the card of an ensemble"
    )
    parser.add_argument("--splits", type=Path, help="data/splits.csv; needed with --ensemble-weights for train")
    arguments = parser.parse_args()
    if arguments.members and len(arguments.members) != len(arguments.inputs):
        parser.error(f"{len(arguments.members)} --members for {len(arguments.inputs)} --inputs")
    if arguments.ensemble_weights and arguments.subset == "train" and not arguments.splits:
        parser.error("--ensemble-weights for the training images needs --splits")

    from nuclei.evaluation.ensemble_weights import read_general_weights, read_weights_by_image
    from nuclei.inference.ensemble import Mode, average_maps
    from nuclei.io.probability_maps import write_maps
    from nuclei.progress import show_progress
    from nuclei.reporting.score_records import write_members
    from nuclei.submission.submission import read_sizes

    sizes = read_sizes(arguments.index, arguments.subset)
    # every fold predicts all test images, while a training image is held out of one fold only
    mode: Mode | None = "common" if arguments.subset == "test" else None
    names = arguments.members or [path.absolute().parent.name for path in arguments.inputs]
    weights = general = arguments.weights
    if arguments.ensemble_weights:
        splits = arguments.splits if arguments.subset == "train" else None
        weights = read_weights_by_image(arguments.ensemble_weights, names, arguments.index, splits)
        general = read_general_weights(arguments.ensemble_weights, names)
    averaged = average_maps(arguments.inputs, sizes, mode, weights)
    if arguments.members and arguments.subset == "train":  # one writer of members.json, not two
        write_members(arguments.out.parent, dict(zip(names, general or [1.0] * len(names), strict=True)))
    write_maps(arguments.out, show_progress(averaged, f"average  {arguments.out}", "images", len(sizes)))


if __name__ == "__main__":
    raise SystemExit(run(main))
