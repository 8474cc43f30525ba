"""Writes the comparison of measured runs: plot (.svg), table (.csv) and README.md of all tables."""

import argparse
from functools import partial
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measured", type=Path, nargs="+", required=True, help="measured.json of the runs")
    parser.add_argument(
        "--configs", type=Path, required=True, help="configs of the variants: line 1 is the title"
    )
    parser.add_argument("--table", required=True, help="which table they make: compare or learning_curve")
    parser.add_argument("--out", type=Path, required=True, help="folder of the comparison")
    parser.add_argument("--command", required=True, help="the command that makes the table, for the page")
    arguments = parser.parse_args()

    from nuclei.config_files import read_title
    from nuclei.errors import UserError
    from nuclei.io.files import read_json
    from nuclei.reporting.comparison import TABLES, comparison, update_comparison
    from nuclei.reporting.plots import plot_comparison, plot_learning_curve

    if arguments.table not in TABLES:
        raise UserError(f"--table {arguments.table}: expected one of {', '.join(TABLES)}")

    def describe(variant: str) -> str:
        return read_title(arguments.configs / f"{variant}.toml")

    frame = comparison([read_json(path) for path in arguments.measured]).assign(command=arguments.command)
    plot = plot_comparison if arguments.table == "compare" else plot_learning_curve
    update_comparison(arguments.out, arguments.table, frame, partial(plot, frame=frame), describe)
    print(frame[["experiment", "training_images", "score", "dice", "minutes"]].round(4).to_string(index=False))


if __name__ == "__main__":
    raise SystemExit(run(main))
