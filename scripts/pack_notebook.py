"""Packs a Kaggle notebook (GPU) that trains, or predicts with trained weights, and its code."""

import argparse
from pathlib import Path

from nuclei.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("."), help="repository (default: here)")
    parser.add_argument("--out", type=Path, required=True, help="folder for notebook/ and dataset/")
    parser.add_argument("--user", required=True, help="your name on Kaggle")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--weights", type=Path, help="a file, a folder or an ensemble's card")
    what.add_argument("--members", help="train these experiments, in one argument")
    parser.add_argument("--stage", choices=("stage1", "stage2"), default="stage1", help="images")
    parser.add_argument(
        "--ensemble-weights", default="", help="of the members, in one argument (default: tuned)"
    )
    parser.add_argument("--folds", help="folds to train, in one argument")
    args = parser.parse_args()
    if args.members is not None and args.folds is None:
        parser.error("--members needs --folds")
    return args


def main() -> None:
    args = parse_arguments()

    from nuclei.submission.kaggle_notebook import pack_prediction, pack_training

    if args.weights:
        from nuclei.inference.weights import list_files

        files = {f"weights/{name}": file for name, file in list_files(args.weights).items()}
        weights = f"weights/{args.weights.name}"
        pack_prediction(args.root, args.out, args.user, weights, files, args.stage)
    else:
        pack_training(args.root, args.out, args.user, args.members, args.ensemble_weights, args.folds)
    out = args.out
    print(f"once:  kaggle datasets create -p {out}/dataset     (later: kaggle datasets version -m ...)")
    print(f"then:  kaggle kernels push -p {out}/notebook")


if __name__ == "__main__":
    raise SystemExit(run(main))
