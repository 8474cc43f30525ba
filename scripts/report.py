"""Writes the leaderboard of all scored experiments: leaderboard.csv and, last, README.md beside the submissions."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder of runs, with <experiment>/cv.json")
    parser.add_argument("--submissions", type=Path, required=True, help="folder of the submissions")
    arguments = parser.parse_args()

    from nuclei.artifacts import write_csv, write_text
    from nuclei.report import leaderboard, leaderboard_page, read_experiments, training_effort

    experiments = read_experiments(arguments.runs)
    efforts = {
        experiment["experiment"]: training_effort(arguments.runs / experiment["experiment"])
        for experiment in experiments
    }
    frame = leaderboard(experiments, efforts)
    write_csv(arguments.submissions / "leaderboard.csv", frame.round(6))
    write_text(arguments.submissions / "README.md", leaderboard_page(frame, len(experiments[0]["image"])))
    print(frame[["experiment", "score", "low", "high"]].round(4).to_string(index=False))


if __name__ == "__main__":
    raise SystemExit(run(main))
