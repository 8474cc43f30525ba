"""Assigns training images to folds: by groups of tiles, by source or by modality."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True, help="index.csv of prepared images")
    parser.add_argument("--out", type=Path, required=True, help="where to write the table of folds")
    parser.add_argument(
        "--by",
        choices=("group", "source", "modality", "seen-and-unseen"),
        default="group",
        help="what stays whole; seen-and-unseen: fold 0 holds out sources and images of others",
    )
    parser.add_argument("--folds", type=int, default=5, help="number, not by modality (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the shuffles (default: 0)")
    args = parser.parse_args()

    from nuclei.data import splits
    from nuclei.io import files
    from nuclei.io.tables import INDEX_COLUMNS, SOURCE, read_table

    index = read_table(args.index, INDEX_COLUMNS, "run `make data`")
    if args.by == "source":
        index = read_table(args.index, (*INDEX_COLUMNS, SOURCE), "run `make data`")
        folds = splits.assign_sources(index, args.folds, args.seed)
        index = index.assign(group=index.source)
    elif args.by == "modality":
        folds = splits.assign_modalities(index)
    elif args.by == "seen-and-unseen":
        index = read_table(args.index, (*INDEX_COLUMNS, SOURCE), "run `make data`")
        folds = splits.assign_seen_and_unseen(index, args.folds, args.seed)
    else:
        folds = splits.assign_folds(index, args.folds, args.seed)
    splits.check_splits(folds, index)
    files.write_csv(args.out, folds)
    print("\n".join(splits.summarise(folds)))


if __name__ == "__main__":
    raise SystemExit(run(main))
