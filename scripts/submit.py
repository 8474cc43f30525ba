"""Submits a file to the competition on Kaggle once, waits for the score and records both."""

import argparse
from pathlib import Path

from nuclei.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submission", type=Path, required=True, help="ImageId, EncodedPixels")
    parser.add_argument(
        "--index", type=Path, required=True, help="index.csv of the prepared images; may be missing"
    )
    parser.add_argument("--message", required=True, help="description shown on Kaggle")
    parser.add_argument("--record", type=Path, required=True, help="CSV of what was submitted")
    parser.add_argument(
        "--timeout", type=float, default=600, help="seconds to wait for the score (default: 600)"
    )
    parser.add_argument("--again", action="store_true", help="even if it was submitted before")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()

    from nuclei.submission.submission import read_sizes
    from nuclei.submission.submit import submit

    entry = submit(
        args.submission,
        read_sizes(args.index) if args.index.is_file() else None,
        args.message,
        args.record,
        args.timeout,
        args.again,
    )
    print(
        f"{entry.file} of {entry.date}: public {entry.public_score or '-'}, private "
        f"{entry.private_score or '-'}"
    )


if __name__ == "__main__":
    raise SystemExit(run(main))
