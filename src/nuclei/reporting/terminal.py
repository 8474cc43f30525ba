"""The leaderboard for a terminal of 80 columns; the Markdown page and the CSV have the rest."""

from typing import Any

import pandas as pd

from nuclei.reporting.differences import BEST, DASH, NOISE, known
from nuclei.reporting.leaderboard import ONLY_UNSEEN, OTHER

HEADER = ("experiment", "score", "95%", "unseen", "behind the best (95%)")
WIDTHS = (21, 8, 13, 8, 30)
"""Columns of the cells, 80 together."""
HEADINGS = {
    OTHER: "on other images, so not comparable with those above:",
    ONLY_UNSEEN: "on unseen sources alone:",
}


def format_leaderboard(frame: pd.DataFrame) -> str:
    """Experiments, best first: score with 95% interval, unseen sources, difference to the best."""
    compared = frame[~frame.verdict.isin(list(HEADINGS))]
    lines = [_line(HEADER), *map(_row, compared.to_dict("records"))]
    for verdict, heading in HEADINGS.items():
        rows = frame[frame.verdict == verdict].to_dict("records")
        lines += [heading, *map(_row, rows)] if rows else []
    return "\n".join(lines)


def _row(row: Any) -> str:
    interval = f"{row['low']:.3f}-{row['high']:.3f}" if known(row.get("low")) else ""
    scores = [f"{row[name]:.4f}" if known(row.get(name)) else DASH for name in ("score", "unseen")]
    return _line((row["experiment"], scores[0], interval, scores[1], _difference(row)))


def _difference(row: Any) -> str:
    if row["verdict"] == BEST or not known(row.get("behind")):
        return BEST if row["verdict"] == BEST else ""
    noise = f" {NOISE}" if row["verdict"] == NOISE else ""
    return f"{row['behind']:.3f} ({row['behind_low']:.3f} to {row['behind_high']:.3f}){noise}"


def _line(cells: tuple[str, ...]) -> str:
    name, *others = cells
    most = WIDTHS[0] - 1
    cells = (name if len(name) <= most else f"{name[: most - 1]}…", *others)
    return "".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()
