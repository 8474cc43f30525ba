"""Asks Kaggle for scores of submissions that still wait for one, records them; sends nothing."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, required=True, help="submissions/kaggle.csv")
    args = parser.parse_args()

    from nuclei.submission.submit import refresh

    entries = refresh(args.record)
    if not entries:
        print(f"{args.record}: nothing was sent to Kaggle from here yet; `make submit` sends a CSV")
    for entry in entries:
        print(f"{entry.file}: {entry.status} {entry.public_score} {entry.private_score}".rstrip())


if __name__ == "__main__":
    raise SystemExit(run(main))
