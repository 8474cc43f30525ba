"""Downloads, checks and converts external data sets, without the competition's own images."""

import argparse
from pathlib import Path

from nuclei.cli import EXTERNAL_SETS, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sets", nargs="+", required=True, help="public sets; folders, zips of images/ and labels/"
    )
    parser.add_argument(
        "--processed", type=Path, required=True, help="the competition's images, with index.csv"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for <set>/images, labels, provenance.json"
    )
    parser.add_argument(
        "--table", type=Path, default=EXTERNAL_SETS, help=f"the public sets (default {EXTERNAL_SETS.name})"
    )
    args = parser.parse_args()

    from nuclei.data.external_download import competition_thumbnails, prepare_set, read_public_sets
    from nuclei.data.external_sets import ExternalSet

    public = read_public_sets(args.table)
    args.out.mkdir(parents=True, exist_ok=True)
    known = competition_thumbnails(args.processed)
    for name in args.sets:
        made = ExternalSet(prepare_set(name, public, args.out, known)).stated
        assert made is not None
        print(f"{args.out / made.name}: {made.images} images, {made.nuclei} nuclei, {made.licence}")
        if made.refused:
            print(f"left out {len(made.refused)} images that are images of the competition")


if __name__ == "__main__":
    raise SystemExit(run(main))
