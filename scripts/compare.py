"""Writes the comparison of measured runs: a plot (.svg), README.md of all tables in the folder, the table (.csv)."""

import argparse
from pathlib import Path

from nuclei.cli import run

TABLES = ("compare", "learning_curve")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measured", type=Path, nargs="+", required=True, help="measured.json of the runs")
    parser.add_argument("--configs", type=Path, required=True, help="the variants' configs: their first line says what")
    parser.add_argument("--table", choices=TABLES, required=True, help="which table they make")
    parser.add_argument("--out", type=Path, required=True, help="folder of the comparison")
    parser.add_argument("--command", required=True, help="what to type for the table, for the page")
    arguments = parser.parse_args()

    import pandas

    from nuclei.config_files import read_title
    from nuclei.io.files import read_json, write_csv, write_text
    from nuclei.reporting.comparison import comparison, comparison_page
    from nuclei.reporting.plots import plot_comparison, plot_learning_curve

    def say(variant: str) -> str:
        return read_title(arguments.configs / f"{variant}.toml")

    frame = comparison([read_json(path) for path in arguments.measured]).assign(command=arguments.command)
    tables = {name: pandas.read_csv(path) for name in TABLES if (path := arguments.out / f"{name}.csv").is_file()}
    tables[arguments.table] = frame
    plot = plot_comparison if arguments.table == "compare" else plot_learning_curve
    plot(arguments.out / f"{arguments.table}.svg", frame)
    write_text(arguments.out / "README.md", comparison_page(tables.get("compare"), tables.get("learning_curve"), say))
    write_csv(arguments.out / f"{arguments.table}.csv", frame.round(6))
    print(frame[["experiment", "training_images", "score", "dice", "minutes"]].round(4).to_string(index=False))


if __name__ == "__main__":
    raise SystemExit(run(main))
