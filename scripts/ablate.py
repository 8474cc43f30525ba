"""Writes what each step of configs/ablation adds: ablation.csv and, last, README.md."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=Path, nargs="*", default=[], help="out-of-fold scores")
    parser.add_argument("--modalities", type=Path, nargs="*", default=[], help="on unseen modalities")
    parser.add_argument("--configs", type=Path, required=True, help="configs; their line 1 is a title")
    parser.add_argument("--out", type=Path, required=True, help="folder of the page and the table")
    parser.add_argument("--command", required=True, help="command of the table, for the page")
    args = parser.parse_args()

    from nuclei.config_files import read_title
    from nuclei.io.files import write_text
    from nuclei.io.spreadsheets import write_spreadsheet
    from nuclei.reporting.ablation import (
        FOLDS,
        MODALITIES,
        STEP,
        ablation,
        ablation_page,
        measured_modalities,
        read_steps,
    )

    def describe(step: str) -> str:
        return read_title(args.configs / f"{step}.toml")

    measured = {FOLDS: read_steps(args.folds), MODALITIES: read_steps(args.modalities)}
    frame, modalities = ablation(measured), measured_modalities(measured)
    write_spreadsheet(args.out / "ablation.csv", frame.round(6).assign(command=args.command))
    write_text(args.out / "README.md", ablation_page(frame, modalities, args.command, describe))
    print(frame[["held_out", STEP, "images", "score", "difference"]].round(4).to_string(index=False))


if __name__ == "__main__":
    raise SystemExit(run(main))
