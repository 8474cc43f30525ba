"""Assigns training images to folds: by groups of tiles, by source or by modality."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True, help="index.csv of the prepared images")
    parser.add_argument("--out", type=Path, required=True, help="where to write the table of folds")
    parser.add_argument(
        "--by",
        choices=("group", "source", "modality", "seen-and-unseen"),
        default="group",
        help="what stays whole; seen-and-unseen: fold 0 holds out whole sources, and images of the others",
    )
    parser.add_argument("--folds", type=int, default=5, help="number of folds, not by modality (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the shuffles (default: 0)")
    arguments = parser.parse_args()

    from nuclei.data import splits
    from nuclei.io import files
    from nuclei.io.tables import INDEX_COLUMNS, SOURCE, read_table

    index = read_table(arguments.index, INDEX_COLUMNS, "run `make data`")
    if arguments.by == "source":
        index = read_table(arguments.index, (*INDEX_COLUMNS, SOURCE), "run `make data`")
        folds = splits.assign_sources(index, arguments.folds, arguments.seed)
        index = index.assign(group=index.source)
    elif arguments.by == "modality":
        folds = splits.assign_modalities(index)
    elif arguments.by == "seen-and-unseen":
        index = read_table(arguments.index, (*INDEX_COLUMNS, SOURCE), "run `make data`")
        folds = splits.assign_seen_and_unseen(index, arguments.folds, arguments.seed)
    else:
        folds = splits.assign_folds(index, arguments.folds, arguments.seed)
    splits.check_splits(folds, index)
    files.write_csv(arguments.out, folds)
    print("\n".join(splits.summarise(folds)))


if __name__ == "__main__":
    raise SystemExit(run(main))
