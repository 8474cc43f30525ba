"""Averages maps image by image: the folds of a run, or the runs of an ensemble."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=Path, nargs="+", required=True, help="maps (.npz)")
    parser.add_argument("--members", nargs="+", help="their experiments (default: folder names)")
    parser.add_argument("--out", type=Path, required=True, help="output: the averaged maps, .npz")
    parser.add_argument("--index", type=Path, required=True, help="data/processed/index.csv")
    parser.add_argument(
        "--subset", choices=("train", "test"), required=True, help="images that all inputs have"
    )
    weighing = parser.add_mutually_exclusive_group()
    weighing.add_argument("--weights", type=float, nargs="+", help="of the inputs (default: equal)")
    weighing.add_argument(
        "--ensemble-weights", type=Path, help="ensemble_weights.json or the card of an ensemble"
    )
    parser.add_argument("--splits", type=Path, help="for --ensemble-weights of --subset train")
    args = parser.parse_args()
    if args.members and len(args.members) != len(args.inputs):
        parser.error(f"{len(args.members)} --members for {len(args.inputs)} --inputs")
    if args.ensemble_weights and args.subset == "train" and not args.splits:
        parser.error("--ensemble-weights for the training images needs --splits")

    from nuclei.evaluation.ensemble_weights import read_general_weights, read_weights_by_image
    from nuclei.inference.ensemble import Mode, average_maps
    from nuclei.io.probability_maps import write_maps
    from nuclei.progress import show_progress
    from nuclei.reporting.score_records import write_members
    from nuclei.submission.submission import read_sizes

    sizes = read_sizes(args.index, args.subset)
    # every fold predicts all test images, while a training image is held out of one fold only
    mode: Mode | None = "common" if args.subset == "test" else None
    names = args.members or [path.absolute().parent.name for path in args.inputs]
    weights = general = args.weights
    if args.ensemble_weights:
        splits = args.splits if args.subset == "train" else None
        weights = read_weights_by_image(args.ensemble_weights, names, args.index, splits)
        general = read_general_weights(args.ensemble_weights, names)
    averaged = average_maps(args.inputs, sizes, mode, weights)
    if args.members and args.subset == "train":  # one writer of members.json, not two
        write_members(args.out.parent, dict(zip(names, general or [1.0] * len(names), strict=True)))
    write_maps(args.out, show_progress(averaged, f"average  {args.out}", "images", len(sizes)))


if __name__ == "__main__":
    raise SystemExit(run(main))
