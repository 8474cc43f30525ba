"""Packs a notebook that runs the pipeline on Kaggle's GPUs, and the data set of code for it."""

import argparse
from pathlib import Path

from nuclei.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("."), help="the repository (default: here)")
    parser.add_argument("--out", type=Path, required=True, help="folder for notebook/ and dataset/")
    parser.add_argument("--user", required=True, help="your name on Kaggle")
    parser.add_argument("--members", required=True, help="experiments to train, in one argument")
    parser.add_argument(
        "--ensemble-weights", default="", help="of the members, in one argument (default: tuned)"
    )
    parser.add_argument("--folds", required=True, help="folds to train, in one argument")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()

    from nuclei.submission.kaggle_notebook import pack_notebook

    pack_notebook(
        arguments.root,
        arguments.out,
        arguments.user,
        arguments.members,
        arguments.ensemble_weights,
        arguments.folds,
    )
    print(
        f"once:  kaggle datasets create -p {arguments.out}/dataset     (later: kaggle datasets version -m ...)"
    )
    print(f"then:  kaggle kernels push -p {arguments.out}/notebook")


if __name__ == "__main__":
    raise SystemExit(run(main))
