"""Packs an exported network and its checkpoint as a folder for Kaggle Models."""

import argparse
from pathlib import Path

from nuclei.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--files", type=Path, nargs="+", required=True, help="what to publish: model.onnx, model.pt"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--user", required=True, help="your name on Kaggle")
    parser.add_argument("--experiment", required=True, help="name of the variation")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()

    from nuclei.publishing.kaggle_model import pack_model

    pack_model(args.files, args.out, args.user, args.experiment)
    print(f"once:  kaggle models create -p {args.out}")
    print(f"then:  kaggle models variations create -p {args.out}/variation")


if __name__ == "__main__":
    raise SystemExit(run(main))
