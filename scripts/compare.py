"""Writes the comparison of measured runs: plot (.svg), table (.csv) and README.md of all tables."""

import argparse
from functools import partial
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measured", type=Path, nargs="+", required=True, help="their measured.json")
    parser.add_argument(
        "--configs", type=Path, required=True, help="configs of the variants: line 1 is the title"
    )
    parser.add_argument("--table", required=True, help="compare or learning_curve")
    parser.add_argument("--out", type=Path, required=True, help="folder of the comparison")
    parser.add_argument("--command", required=True, help="command of the table, for the page")
    args = parser.parse_args()

    from nuclei.config_files import read_title
    from nuclei.errors import UserError
    from nuclei.io.files import read_json
    from nuclei.reporting.comparison import TABLES, comparison, update_comparison
    from nuclei.reporting.plots import plot_comparison, plot_learning_curve

    if args.table not in TABLES:
        raise UserError(f"--table {args.table}: expected one of {', '.join(TABLES)}")

    def describe(variant: str) -> str:
        return read_title(args.configs / f"{variant}.toml")

    frame = comparison([read_json(path) for path in args.measured]).assign(command=args.command)
    plot = plot_comparison if args.table == "compare" else plot_learning_curve
    update_comparison(args.out, args.table, frame, partial(plot, frame=frame), describe)
    print(frame[["experiment", "training_images", "score", "dice", "minutes"]].round(4).to_string(index=False))


if __name__ == "__main__":
    raise SystemExit(run(main))
