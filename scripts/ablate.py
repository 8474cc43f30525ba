"""Writes what each step of configs/ablation adds: ablation.csv and, last, README.md."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=Path, nargs="*", default=[], help="scores of the steps, out of fold")
    parser.add_argument("--modalities", type=Path, nargs="*", default=[], help="scores on modalities left out")
    parser.add_argument("--configs", type=Path, required=True, help="the steps' configs: their first line says what")
    parser.add_argument("--out", type=Path, required=True, help="folder of the page and the table")
    parser.add_argument("--command", required=True, help="what to type for the table, for the page")
    arguments = parser.parse_args()

    from nuclei.config_files import read_title
    from nuclei.io.files import write_csv, write_text
    from nuclei.reporting.ablation import FOLDS, MODALITIES, ablation, ablation_page, gather

    def say(rung: str) -> str:
        return read_title(arguments.configs / f"{rung}.toml")

    kinds = {FOLDS: arguments.folds, MODALITIES: arguments.modalities}
    frame = ablation({kind: gather(paths) for kind, paths in kinds.items()})
    write_csv(arguments.out / "ablation.csv", frame.round(6).assign(command=arguments.command))
    write_text(arguments.out / "README.md", ablation_page(frame, arguments.command, say))
    print(frame[["held_out", "rung", "images", "score", "difference"]].round(4).to_string(index=False))


if __name__ == "__main__":
    raise SystemExit(run(main))
