"""Writes the leaderboard of all scored experiments: scores/, leaderboard.csv and, last, README.md, beside the CSVs."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder of runs, with <experiment>/cv.json")
    parser.add_argument("--submissions", type=Path, required=True, help="folder of the submissions, with scores/")
    arguments = parser.parse_args()

    from nuclei.io.files import write_csv, write_text
    from nuclei.reporting.leaderboard import entries_by_experiment, leaderboard, leaderboard_page
    from nuclei.reporting.score_records import comparable, gather
    from nuclei.submission.submit import refresh

    summaries = gather(arguments.runs, arguments.submissions / "scores")
    entries = entries_by_experiment(refresh(arguments.submissions / "kaggle.csv"), arguments.submissions)
    frame = leaderboard(summaries, comparable(summaries, arguments.runs), entries)
    write_csv(arguments.submissions / "leaderboard.csv", frame.round(6))
    write_text(arguments.submissions / "README.md", leaderboard_page(frame))
    print(frame[["experiment", "score", "low", "high", "verdict"]].round(4).to_string(index=False))


if __name__ == "__main__":
    raise SystemExit(run(main))
