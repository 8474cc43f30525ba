"""Scores on unseen sources in the leaderboard: columns, table, expectation for a new laboratory."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from nuclei.evaluation.bootstrap import paired_difference
from nuclei.reporting.differences import (
    BEST,
    DASH,
    NOISE,
    format_behind,
    format_difference,
    format_interval,
    judge,
    known,
)
from nuclei.reporting.rendering import table_line
from nuclei.reporting.unseen_records import UnseenRecord

COLUMNS = (
    *("", "_low", "_high", "_images", "_sources", "_lowest", "_highest"),
    *("_behind", "_behind_low", "_behind_high", "_verdict"),
    *("_gain", "_gain_low", "_gain_high", "_ap_0.50", "_ap_0.90", "_commit"),
)
"""Ends of the names of the columns that begin with `unseen`."""
NOT_MEASURED: dict[str, Any] = {f"unseen{name}": None for name in COLUMNS}
NOT_MEASURED |= {"expected": None, "expected_low": None, "expected_high": None, "expected_for": None}
"""The columns of an experiment that was not scored on unseen sources."""
NOTE = """\
Trained again with whole sources held out (`make unseen EXP=<experiment>`): each image comes from a source that its
network never saw, and is post-processed with parameters that no image chose. *Tuned* is the gain by parameters
tuned on the other folds' sources. *New laboratory* is what to expect of one: every source counts the same, and
modalities are weighted as the {images}. *Single sources* are the lowest and the highest.
Intervals resample {sources} sources; paired differences are to the best of this table."""


def unseen_columns(records: Mapping[str, UnseenRecord]) -> dict[str, dict[str, Any]]:
    """The columns of NOT_MEASURED by experiment; `records` are by experiment, best first.

    Paired differences are to the first, over resampled sources, where the images are the same.
    """
    best = next(iter(records.values()), None)
    found = {}
    for name, record in records.items():
        low, high = record.interval()
        expected = record.expectation()
        row: dict[str, Any] = {"unseen": record.score, "unseen_low": low, "unseen_high": high}
        row |= {"unseen_images": record.n_images, "unseen_sources": record.n_sources}
        row |= {"unseen_lowest": expected.lowest, "unseen_highest": expected.highest}
        row |= _difference(record, best)
        if record.tuned is not None:
            row |= {"unseen_gain": record.tuned.gain, "unseen_gain_low": record.tuned.low}
            row["unseen_gain_high"] = record.tuned.high
        row["unseen_commit"] = record.effort.commit
        row |= {f"unseen_ap_{threshold}": record.ap.get(threshold) for threshold in ("0.50", "0.90")}
        row |= {"expected": expected.score, "expected_low": expected.low, "expected_high": expected.high}
        counts = sorted(expected.images.items(), key=lambda item: -item[1])
        row["expected_for"] = ", ".join(f"{count} {modality}" for modality, count in counts)
        found[name] = NOT_MEASURED | row
    return found


def format_unseen(row: Mapping[str, Any]) -> str:
    """`0.4812 (0.350 to 0.560)`, or a dash."""
    if not known(row["unseen"]):
        return DASH
    return f"{row['unseen']:.4f}{format_interval(row['unseen_low'], row['unseen_high'])}"


def unseen_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a leaderboard that have a score on unseen sources, best first."""
    return list(frame[frame.unseen.notna()].sort_values("unseen", ascending=False).to_dict("records"))


def unseen_lines(frame: pd.DataFrame) -> list[str]:
    """The section on unseen sources in Markdown."""
    rows = unseen_rows(frame)
    lines = ["", "## Unseen sources", ""]
    if not rows:
        return [*lines, "No experiment was scored on them yet: `make unseen EXP=<experiment>`."]
    lines += [unseen_note(rows), ""]
    header = ["experiment", "unseen sources (95%)", "new laboratory (95%)", "single sources"]
    header += ["behind the best (95%)", "tuned (95%)", "AP 0.50", "AP 0.90", "seen sources"]
    lines += [table_line(header), table_line(["---"] + ["---:"] * (len(header) - 1))]
    lines += [_table_row(row) for row in rows]
    return [*lines, "", f"{describe_expectation(rows[0])}."]


def unseen_note(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the table shows, in Markdown; empty where there is none."""
    if not rows:
        return ""
    sources = max(int(row["unseen_sources"]) for row in rows)
    shown = rows[0]["expected_for"].replace("_", " ")
    return NOTE.format(
        sources=sources, images=f"test images have them ({shown})" if shown else "scored images have them"
    )


def format_gain(row: Mapping[str, Any]) -> str:
    """The gain by tuning with its interval and, where that contains 0, its verdict."""
    gain, low, high = (row[f"unseen_gain{bound}"] for bound in ("", "_low", "_high"))
    if not known(gain):
        return ""
    return format_difference(gain, low, high) + (f", {NOISE}" if judge(low, high) == NOISE else "")


def describe_expectation(row: Mapping[str, Any]) -> str:
    """What to expect on images of a new laboratory, as a sentence without its full stop."""
    return (
        f"On images of a new laboratory expect a score of about {row['expected']:.2f} with "
        f"{row['experiment']} (95%: {row['expected_low']:.2f} to {row['expected_high']:.2f}); "
        f"single sources were between {row['unseen_lowest']:.2f} and {row['unseen_highest']:.2f}"
    )


def _table_row(row: Mapping[str, Any]) -> str:
    cells = [
        row["experiment"],
        f"**{row['unseen']:.4f}**{format_interval(row['unseen_low'], row['unseen_high'])}",
    ]
    cells += [f"{row['expected']:.3f}{format_interval(row['expected_low'], row['expected_high'])}"]
    cells += [f"{row['unseen_lowest']:.3f} to {row['unseen_highest']:.3f}", format_behind(row, "unseen_")]
    cells += [format_gain(row)]
    cells += [f"{row[f'unseen_ap_{threshold}']:.3f}" for threshold in ("0.50", "0.90")]
    return table_line([*cells, f"{row['score']:.4f}" if known(row.get("score")) else DASH])


def _difference(record: UnseenRecord, best: UnseenRecord | None) -> dict[str, Any]:
    if best is None or record is best:
        return {
            "unseen_behind": 0.0,
            "unseen_behind_low": 0.0,
            "unseen_behind_high": 0.0,
            "unseen_verdict": BEST,
        }
    if set(record.image) != set(best.image):
        return {"unseen_verdict": "other images"}
    behind, low, high = paired_difference(best.image_scores(), record.image_scores(), best.source)
    values = {"unseen_behind": behind, "unseen_behind_low": low, "unseen_behind_high": high}
    return {**values, "unseen_verdict": judge(low, high)}
