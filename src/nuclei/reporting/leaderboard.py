"""Leaderboard: out-of-fold scores on the same images, with intervals and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nuclei.data.image_sources import read_corrections
from nuclei.errors import UserError
from nuclei.evaluation.bootstrap import bootstrap_interval, paired_difference
from nuclei.evaluation.metric import THRESHOLDS
from nuclei.io.files import sha256
from nuclei.reporting.differences import BEST, format_behind, format_interval, judge, known
from nuclei.reporting.reference_scores import reference_section
from nuclei.reporting.rendering import table_line
from nuclei.reporting.score_records import Effort, ScoreRecord, comparable, find_records
from nuclei.reporting.unseen_records import UnseenRecord, read_unseen_records, untrained_record
from nuclei.reporting.unseen_scores import NOT_MEASURED, format_unseen, unseen_columns, unseen_lines
from nuclei.submission.submit import SCORED, Entry, read_record

SHOWN_THRESHOLDS = ("0.50", "0.75", "0.90")
"""Thresholds that pages have a column for."""
PAGE_THRESHOLDS = ("0.50", "0.90")
"""Those of the leaderboard in Markdown; leaderboard.csv has all of them."""
NOTE = """\
Competition metric out of fold on {images} training images: each image is predicted by the network of the fold
that holds it and its relatives out, with post-processing tuned on the other folds. So its score is one on *seen
sources* (laboratory, microscope, stain); that on *unseen sources* is explained below. Intervals hold 95% of the
means over {unit}. *Behind the best* is the mean paired difference on seen sources, image by image;
*noise* where its interval contains 0. Written by `make leaderboard`, or by `make standings` from
[`scores/`](scores) without the runs. Modalities, hardware and commits: [`leaderboard.csv`](leaderboard.csv)."""

OTHER, ONLY_UNSEEN = "other images", "only unseen sources"
"""Verdicts of experiments that the others are not compared with."""


@dataclass(frozen=True)
class Standing:
    """All scored experiments: the leaderboard, and those scored on the same images, best first."""

    frame: pd.DataFrame
    compared: list[ScoreRecord]


def read_standing(runs: Path, submissions: Path, sources: Path) -> Standing:
    """Leaderboard of the runs and of the scores recorded in `submissions`, best first.

    Raises:
        UserError: no experiment was scored anywhere; a file of another kind.
    """
    records = find_records(runs, submissions / "scores")
    unseen = read_unseen_records(runs, submissions / "scores")
    if not records and not unseen:
        raise UserError(f"neither {runs} nor {submissions} has a scored experiment; run `make submission`")
    entries = entries_by_experiment(read_record(submissions / "kaggle.csv"), submissions)
    compared, source = comparable(records, runs), read_corrections(sources)
    counts = next((dict(record.test_modality) for record in unseen.values()), {})
    for record in records:
        if record.is_untuned and known_sources(record, source):
            unseen.setdefault(record.experiment, untrained_record(record, source, counts))
    unseen = dict(sorted(unseen.items(), key=lambda item: -item[1].score))
    return Standing(leaderboard(records, compared, entries, source, unseen), compared)


def leaderboard(
    records: Sequence[ScoreRecord],
    compared: Sequence[ScoreRecord],
    kaggle: Mapping[str, Entry],
    sources: Mapping[str, str] | None = None,
    unseen: Mapping[str, UnseenRecord] | None = None,
) -> pd.DataFrame:
    """A row an experiment, those of `compared` first, best first: score with 95% interval and more.

    `behind` is the mean paired difference to the best over the images, with a 95% interval;
    `verdict` is noise where the interval contains 0. Both are empty for an experiment recorded
    without its images. `compared` are those scored on the same images, see
    `score_records.comparable`; `kaggle` has the entries by experiment. `sources` has the source of
    each image by id; then intervals resample sources, where all images have one, and the column
    `sources` has their number. `unseen` has the scores on unseen sources by experiment, for the
    columns of `unseen_scores.unseen_columns`; experiments that have no others come last.
    """
    columns = unseen_columns(unseen or {})
    by_name = {record.experiment: record for record in records}
    names = [record.experiment for record in compared]
    names += [name for name in by_name if name not in names]
    rows = []
    for name in names:
        record, entry = by_name[name], kaggle.get(name)
        row: dict[str, Any] = {"experiment": name, "members": name_members(record.members)}
        row |= {"images": record.n_images, "score": record.score}
        row |= _interval(record, known_sources(record, sources))
        row |= _difference(record, compared[0], sources) if record in compared else {"verdict": OTHER}
        row |= columns.pop(name, NOT_MEASURED)
        row |= {f"ap_{threshold:.2f}": record.ap.get(f"{threshold:.2f}") for threshold in THRESHOLDS}
        row |= {modality: group.score for modality, group in sorted(record.modality.items())}
        row["public"] = _kaggle_score(entry.public_score if entry else "")
        row["private"] = _kaggle_score(entry.private_score if entry else "")
        effort = record.effort
        if effort == Effort():
            effort = _total_effort([by_name.get(member) for member in record.members])
        row |= {
            "parameters": effort.parameters,
            "minutes": effort.minutes,
            "hardware": effort.hardware,
        }
        rows.append(row | {"commit": record.effort.commit})
    rows += [
        {"experiment": name, "members": "", "verdict": ONLY_UNSEEN, **own} for name, own in columns.items()
    ]
    return pd.DataFrame(rows)


def known_sources(record: ScoreRecord, sources: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """The sources, where they name that of every image of an experiment."""
    return sources if sources and set(record.image) <= sources.keys() else None


def scored_modalities(records: Sequence[ScoreRecord]) -> list[str]:
    """Modalities that any experiment was scored on, in alphabetical order: leaderboard columns."""
    return sorted({modality for record in records for modality in record.modality})


def entries_by_experiment(entries: Sequence[Entry], submissions: Path) -> dict[str, Entry]:
    """The latest scored entry of each experiment whose file is unchanged since it was submitted."""
    digests = {path.name: sha256(path) for path in submissions.glob("*.csv")}
    return {
        Path(entry.file).stem: entry
        for entry in entries
        if entry.status == SCORED and digests.get(entry.file) == entry.sha256
    }


def name_members(weights: Mapping[str, float]) -> str:
    """`unet_lite0 x 3, unet_small` for an ensemble, empty for a single experiment."""
    smallest = min(weights.values(), default=1)
    relative = {name: weight / smallest for name, weight in weights.items()}
    return ", ".join(name if weight == 1 else f"{name} x {weight:.3g}" for name, weight in relative.items())


def leaderboard_page(frame: pd.DataFrame) -> str:
    """The leaderboard in Markdown; leaderboard.csv has the columns that the page lacks."""
    others, compared = frame[frame.verdict == OTHER], frame[~frame.verdict.isin((OTHER, ONLY_UNSEEN))]
    lines = ["# Leaderboard", ""]
    if len(compared):
        unit = resampled_units(compared)
        lines += [NOTE.format(images=int(compared.images.iloc[0]), unit=unit), "", *_table(compared)]
    lines += unseen_lines(frame)
    if len(others):
        lines += [
            "",
            "Scored on other images, so not comparable with the rows above or with each other:",
            "",
        ]
        lines += _table(others)
    ensembles = frame[frame.members != ""]
    if len(ensembles):
        lines += ["", "Members of the ensembles, with their relative weights:", ""]
        lines += [
            f"- `{name}`: {members}"
            for name, members in zip(ensembles.experiment, ensembles.members, strict=True)
        ]
    rows = frame.to_dict("records")
    submitted = any(known(row.get(name)) for row in rows for name in ("public", "private"))
    return "\n".join([*lines, "", *reference_section(submitted)]) + "\n"


def _table(frame: pd.DataFrame) -> list[str]:
    header = [
        "experiment",
        "seen sources (95%)",
        "unseen sources (95%)",
        "behind the best (95%)",
        *(f"AP {t}" for t in PAGE_THRESHOLDS),
    ]
    header += ["Kaggle public / private", "parameters", "minutes"]
    lines = [table_line(header), table_line(["---"] + ["---:"] * (len(header) - 1))]
    for row in frame.to_dict("records"):
        cells = [f"[{row['experiment']}]({row['experiment']}.csv)"]
        cells += [f"**{row['score']:.4f}**{format_interval(row['low'], row['high'])}"]
        cells += [
            format_unseen(row),
            format_behind(row),
            *(_decimals(row[f"ap_{t}"], 3) for t in PAGE_THRESHOLDS),
        ]
        cells += [" / ".join(_decimals(row[name], 4) for name in ("public", "private") if known(row[name]))]
        lines.append(table_line([*cells, format_count(row["parameters"]), format_count(row["minutes"])]))
    return lines


def format_count(value: Any) -> str:
    """`3.83 M` for parameters, `116` for minutes, empty for nothing."""
    if not known(value):
        return ""
    return f"{value / 1e6:.2f} M" if value > 1e5 else f"{value:.0f}"


def resampled_units(compared: pd.DataFrame) -> str:
    """What the intervals resample, in words."""
    counts = compared.sources.dropna()
    return f"{counts.max():.0f} resampled sources" if len(counts) else "resampled images"


def _interval(record: ScoreRecord, sources: Mapping[str, str] | None) -> dict[str, Any]:
    if not record.image:
        return {"low": record.low, "high": record.high, "sources": None}
    scores = record.image_scores()
    named = [sources[image_id] for image_id in scores] if sources else None
    low, high = bootstrap_interval(np.array(list(scores.values())), named)
    return {"low": low, "high": high, "sources": len(set(named)) if named else None}


def _difference(record: ScoreRecord, best: ScoreRecord, sources: Mapping[str, str] | None) -> dict[str, Any]:
    if record is best:
        return {"behind": 0.0, "behind_low": 0.0, "behind_high": 0.0, "verdict": BEST}
    if not record.image or not best.image:
        return {"behind": None, "behind_low": None, "behind_high": None, "verdict": ""}
    behind, low, high = paired_difference(
        best.image_scores(), record.image_scores(), known_sources(best, sources)
    )
    return {"behind": behind, "behind_low": low, "behind_high": high, "verdict": judge(low, high)}


def _total_effort(members: Sequence[ScoreRecord | None]) -> Effort:
    """The sum of the members' efforts; empty where that of one is unknown."""
    efforts = [member.effort for member in members if member]
    parameters = [effort.parameters for effort in efforts if effort.parameters is not None]
    minutes = [effort.minutes for effort in efforts if effort.minutes is not None]
    if not members or not len(members) == len(parameters) == len(minutes):
        return Effort()
    hardware = ", ".join(sorted({effort.hardware or "" for effort in efforts} - {""}))
    return Effort(parameters=sum(parameters), minutes=round(sum(minutes), 1), hardware=hardware)


def _kaggle_score(written: str) -> float | None:
    return float(written) if written else None


def _decimals(value: Any, places: int) -> str:
    return f"{value:.{places}f}" if known(value) else ""
