"""Writes the leaderboard of all scored experiments: leaderboard.csv and, last, README.md."""

import argparse
from pathlib import Path

from nuclei.cli import IMAGE_SOURCES, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder of runs, with <experiment>/cv.json")
    parser.add_argument(
        "--submissions", type=Path, required=True, help="folder of the submissions, with scores/"
    )
    parser.add_argument("--record", action="store_true", help="copy the scores of the runs to scores/ first")
    parser.add_argument(
        "--sources", type=Path, default=IMAGE_SOURCES, help=f"sources of images (default {IMAGE_SOURCES.name})"
    )
    arguments = parser.parse_args()

    from nuclei.data.image_sources import read_corrections
    from nuclei.io.files import write_text
    from nuclei.io.spreadsheets import write_spreadsheet
    from nuclei.reporting.leaderboard import entries_by_experiment, leaderboard, leaderboard_page
    from nuclei.reporting.score_records import comparable, read_records, record_scores
    from nuclei.submission.submit import read_record

    if arguments.record:
        record_scores(arguments.runs, arguments.submissions / "scores")
    summaries = read_records(arguments.runs, arguments.submissions / "scores")
    entries = entries_by_experiment(read_record(arguments.submissions / "kaggle.csv"), arguments.submissions)
    compared = comparable(summaries, arguments.runs)
    frame = leaderboard(summaries, compared, entries, read_corrections(arguments.sources))
    write_spreadsheet(arguments.submissions / "leaderboard.csv", frame.round(6))
    write_text(arguments.submissions / "README.md", leaderboard_page(frame))
    print(frame[["experiment", "score", "low", "high", "verdict"]].round(4).to_string(index=False))


if __name__ == "__main__":
    raise SystemExit(run(main))
