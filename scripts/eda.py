"""Writes a page of exploratory data analysis (EDA), and a table with a row for each image."""

import argparse
import os
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processed", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--splits", type=Path, help="table of folds")
    parser.add_argument("--source-splits", type=Path, help="table of folds by source")
    parser.add_argument("--page", type=Path, required=True, help="the page, .html, written last")
    parser.add_argument("--table", type=Path, required=True, help="the table, .csv")
    parser.add_argument(
        "--thumbnails", type=int, default=8, help="images of each modality and fold (default 8)"
    )
    parser.add_argument(
        "--megabytes", type=float, default=12, help="megabytes of pictures at most (default 12)"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    args = parser.parse_args()

    from nuclei.data.prepared_images import Images
    from nuclei.io.files import write_text
    from nuclei.io.spreadsheets import write_spreadsheet
    from nuclei.io.tables import read_splits
    from nuclei.reporting.eda.page import data_page
    from nuclei.reporting.eda.statistics import collect_statistics

    statistics = collect_statistics(args.processed, args.splits, args.workers)
    held_out = {}
    if args.source_splits:
        held_out = dict(read_splits(args.source_splits).set_index("image_id").fold)
    images = Images(args.processed)
    page = data_page(statistics, images, args.thumbnails, args.megabytes, held_out)
    write_spreadsheet(args.table, statistics.images.round(4))
    write_text(args.page, page)
    reasons = statistics.findings.groupby("reason", sort=False).number.agg(["size", "sum"])
    for reason, images, number in reasons.itertuples():
        print(f"{reason:12}{images:5} images{number:7}")
    print(f"{args.page}: {len(statistics.images)} images, {args.page.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    raise SystemExit(run(main))
