"""Selects some folds' images, to tune and score these alone: index.csv and splits.csv."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True, help="index.csv of all images")
    parser.add_argument("--splits", type=Path, required=True, help="the table of all folds")
    parser.add_argument("--folds", type=int, nargs="+", required=True, help="the folds to keep")
    parser.add_argument("--out", type=Path, required=True, help="splits.csv; index.csv beside it")
    args = parser.parse_args()

    from nuclei.data.splits import select_folds
    from nuclei.io.files import write_csv
    from nuclei.io.tables import INDEX_COLUMNS, read_splits, read_table

    index = read_table(args.index, INDEX_COLUMNS, "run `make data`")
    index, splits = select_folds(index, read_splits(args.splits), args.folds)
    write_csv(args.out.with_name("index.csv"), index)
    write_csv(args.out, splits)
    print(f"{args.out}: {len(splits)} held-out images of {len(args.folds)} folds")


if __name__ == "__main__":
    raise SystemExit(run(main))
