"""Checks that the competition would accept a submission for the test images of an index."""

import argparse
from pathlib import Path

from nuclei.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submission", type=Path, required=True, help="CSV: ImageId, EncodedPixels")
    parser.add_argument("--index", type=Path, required=True, help="index of the prepared images, index.csv")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()

    from nuclei.submission.submission import read_sizes, validate

    sizes = read_sizes(arguments.index)
    nuclei = validate(arguments.submission, sizes)
    print(f"accepted: {arguments.submission}, {len(sizes)} images, {nuclei} nuclei")


if __name__ == "__main__":
    raise SystemExit(run(main))
