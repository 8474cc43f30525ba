"""Writes the leaderboard of all scored experiments: leaderboard.csv and, last, README.md."""

import argparse
from pathlib import Path

from nuclei.cli import IMAGE_SOURCES, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder with <experiment>/cv.json")
    parser.add_argument(
        "--submissions", type=Path, required=True, help="folder of the submissions, with scores/"
    )
    parser.add_argument("--record", action="store_true", help="first copy scores to scores/")
    parser.add_argument(
        "--sources", type=Path, default=IMAGE_SOURCES, help=f"sources of images (default {IMAGE_SOURCES.name})"
    )
    args = parser.parse_args()

    from nuclei.io.files import write_text
    from nuclei.io.spreadsheets import write_spreadsheet
    from nuclei.reporting.leaderboard import leaderboard_page, read_standing
    from nuclei.reporting.score_records import record_scores
    from nuclei.reporting.terminal import format_leaderboard
    from nuclei.reporting.unseen_records import record_unseen
    from nuclei.reporting.unseen_scores import describe_expectation, unseen_rows

    if args.record:
        record_scores(args.runs, args.submissions / "scores")
        record_unseen(args.runs, args.submissions / "scores")
    frame = read_standing(args.runs, args.submissions, args.sources).frame
    write_spreadsheet(args.submissions / "leaderboard.csv", frame.round(6))
    write_text(args.submissions / "README.md", leaderboard_page(frame))
    print(format_leaderboard(frame))
    for row in unseen_rows(frame)[:1]:
        print(describe_expectation(row))


if __name__ == "__main__":
    raise SystemExit(run(main))
