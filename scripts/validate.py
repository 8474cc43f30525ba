"""Checks that the competition would accept a submission for the test images of an index."""

import argparse
from pathlib import Path

from nuclei.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submission", type=Path, required=True, help="ImageId, EncodedPixels")
    parser.add_argument("--index", type=Path, required=True, help="index.csv of prepared images")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()

    from nuclei.submission.submission import read_sizes, validate

    sizes = read_sizes(args.index)
    nuclei = validate(args.submission, sizes)
    print(f"accepted: {args.submission}, {len(sizes)} images, {nuclei} nuclei")


if __name__ == "__main__":
    raise SystemExit(run(main))
