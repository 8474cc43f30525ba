"""Writes the report of all scored experiments, one page for a browser with everything inside."""

import argparse
from pathlib import Path

from nuclei.cli import IMAGE_SOURCES, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder of runs")
    parser.add_argument(
        "--submissions", type=Path, required=True, help="folder of the submissions, with scores/"
    )
    parser.add_argument("--processed", type=Path, required=True, help="with index.csv, for pictures")
    parser.add_argument("--out", type=Path, required=True, help="the page, .html")
    parser.add_argument("--images", type=int, default=6, help="worst and best images (default 6)")
    parser.add_argument("--megabytes", type=float, default=12, help="room for images (default 12)")
    parser.add_argument(
        "--sources", type=Path, default=IMAGE_SOURCES, help=f"sources of images (default {IMAGE_SOURCES.name})"
    )
    args = parser.parse_args()

    from nuclei.io.files import write_text
    from nuclei.reporting.html_report import report_page
    from nuclei.reporting.leaderboard import read_standing

    standing = read_standing(args.runs, args.submissions, args.sources)
    frame, compared = standing.frame, standing.compared
    page = report_page(frame, compared, args.runs, args.processed, args.images, args.megabytes)
    write_text(args.out, page)
    print(f"{args.out}: {len(frame)} experiments, {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    raise SystemExit(run(main))
