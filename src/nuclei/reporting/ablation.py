"""What each step from a plain network to a good one adds: scores on two kinds of held-out images, as a page.

A rung of the ladder is a config that extends the one below it. Its networks are scored on folds that look like what
they were trained on, and on modalities that they were never shown. Unlike in `comparison`, all rungs have the default
post-processing, and one above them has it tuned.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from nuclei.config_files import parse_config
from nuclei.data.prepared_images import Images
from nuclei.data.splits import held_out_images
from nuclei.errors import UserError
from nuclei.evaluation.bootstrap import bootstrap_interval, paired_difference
from nuclei.evaluation.metric import THRESHOLDS
from nuclei.evaluation.scores import Record, score_image, summarise
from nuclei.io.files import read_json
from nuclei.io.probability_maps import Maps, read_maps
from nuclei.io.tables import read_splits, read_table
from nuclei.postprocessing.parameters import Parameters
from nuclei.postprocessing.watershed import segment_maps
from nuclei.reporting.leaderboard import SHOWN_THRESHOLDS, format_difference
from nuclei.reporting.rendering import table_line
from nuclei.reporting.score_records import image_scores

FOLDS, MODALITIES = "folds", "modalities"
"""The two kinds of held-out images: the folds of `make splits`, and one modality after the other."""
DIFFERENCE = ("difference", "difference_low", "difference_high")
"""Columns of what a rung adds to the one below it."""

_NOTES = ("seed", "steps", "batch", "hardware", "commit")


@dataclass(frozen=True)
class Measured:
    """A rung on one kind of held-out images: records by image id, and the efforts of the trainings behind them."""

    images: dict[str, Record]
    efforts: list[dict[str, Any]]

    def scores(self) -> dict[str, float]:
        return image_scores({"image": self.images})


def score_fold(experiment: str, maps: Path, checkpoint: Path, processed: Path, splits: Path) -> dict[str, Any]:
    """Scores of a fold's held-out maps with the default post-processing, and the effort of the training behind them.

    Beside what `scoring.summarise` says, `effort` has the experiment that was trained, its seed, steps, batch,
    parameters, minutes, hardware and commit.

    Raises:
        UserError: maps of other images than the checkpoint's fold holds out, or of another size; it was trained on
            some of them.
    """
    from nuclei.models.checkpoint_file import load_checkpoint  # torch, which the table does without

    weights, table, archive = load_checkpoint(checkpoint), read_splits(splits), Maps(maps)
    ids = sorted(held_out_images(weights, checkpoint, table))
    if set(ids) != set(archive):
        raise UserError(
            f"{maps}: holds maps of {len(archive)} images, but fold {weights['fold']} of {splits} holds out {len(ids)} "
            "others; predict the fold again"
        )
    images, parameters = Images(processed), Parameters()
    records = [
        score_image(truth, segment_maps(read_maps(archive, image_id, truth, processed), parameters))
        for image_id in tqdm(ids, desc="score", unit="image", mininterval=1)
        for truth in [images.label_map(image_id)]
    ]
    rows = table.set_index("image_id").loc[ids].reset_index()
    log = read_table(checkpoint.parent / "log.csv", ("minutes",), "train again")
    config = parse_config(weights["config"], str(checkpoint))
    effort = {
        **weights["effort"],
        "experiment": config.name,
        "seed": config.training.seed,
        "steps": config.training.steps,
        "batch": config.training.batch,
        "minutes": float(log.minutes.iloc[-1]),
    }
    return {**summarise(experiment, rows, records, {weights["fold"]: parameters.to_dict()}), "effort": effort}


def gather(paths: Iterable[Path]) -> dict[str, Measured]:
    """Rungs by name, each with the images of all its files: `score_fold`'s of every fold, or the tuned one's `cv.json`.

    Raises:
        UserError: a file that is missing; an image that is in two files of a rung.
    """
    found: dict[str, Measured] = {}
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such scores; `make ablation` measures what is missing")
        summary = read_json(path)
        rung = found.setdefault(summary["experiment"], Measured({}, []))
        twice = sorted(rung.images.keys() & summary["image"].keys())
        if twice:
            raise UserError(f"{path}: image {twice[0]} is in another fold of {summary['experiment']} too; score again")
        rung.images.update(summary["image"])
        rung.efforts.extend([summary["effort"]] if "effort" in summary else [])
    return found


def ablation(measured: Mapping[str, Mapping[str, Measured]]) -> pd.DataFrame:
    """One row a rung on one kind of held-out images, lowest first: its scores, and what it adds to the rung below it.

    `measured` has the rungs by name, by kind. `difference` is the mean paired difference, image by image, to the row
    above; `modality_mean` has each modality count alike. `trainings` and their mean `minutes` are empty for a rung that
    predicts with another one's weights, or is but tuned.

    Raises:
        UserError: nothing was measured; rungs of one kind that were scored on different images.
    """
    records = [record for rungs in measured.values() for one in rungs.values() for record in one.images.values()]
    if not records:
        raise UserError("no scores of any step; give `make ablation` at least one of FOLDS or MODALITIES")
    modalities = sorted({record["modality"] for record in records})
    rows: list[dict[str, Any]] = []
    for kind, rungs in measured.items():
        below: dict[str, float] | None = None
        for rung, one in sorted(rungs.items()):
            scores = one.scores()
            if below is not None and scores.keys() != below.keys():
                raise UserError(
                    f"{kind}: {rung} was scored on {len(scores)} images, the step below it on {len(below)} and not on "
                    "the same; run `make ablation` with one FOLDS and one MODALITIES for all RUNGS"
                )
            row = {"held_out": kind, "rung": rung, "images": len(scores), **_scores(one, scores, below)}
            by_modality = _by_modality(one.images)
            row["modality_mean"] = float(np.mean(list(by_modality.values())))
            row |= {modality: by_modality.get(modality, np.nan) for modality in modalities}
            rows.append(row | _effort(rung, one))
            below = scores
    return pd.DataFrame(rows)


def _scores(one: Measured, scores: dict[str, float], below: dict[str, float] | None) -> dict[str, float]:
    """Score and average precisions with the interval, and the paired difference to the scores `below`."""
    low, high = bootstrap_interval(np.array(list(scores.values())))
    row = {"score": float(np.mean(list(scores.values()))), "low": low, "high": high}
    difference = (np.nan, np.nan, np.nan) if below is None else paired_difference(scores, below)
    row |= dict(zip(DIFFERENCE, difference, strict=True))
    ap = np.mean([record["ap"] for record in one.images.values()], axis=0)
    return row | {f"ap_{threshold:.2f}": float(value) for threshold, value in zip(THRESHOLDS, ap, strict=True)}


def _by_modality(images: Mapping[str, Record]) -> dict[str, float]:
    scores: dict[str, list[npt.NDArray[np.float64]]] = {}
    for record in images.values():
        scores.setdefault(record["modality"], []).append(record["ap"])
    return {modality: float(np.mean(scores[modality])) for modality in sorted(scores)}


def _effort(rung: str, one: Measured) -> dict[str, Any]:
    own = [effort for effort in one.efforts if effort["experiment"] == rung]
    minutes = float(np.mean([effort["minutes"] for effort in own])) if own else np.nan
    parameters = own[0]["parameters"] if own else np.nan
    texts = {name: ", ".join(sorted({str(effort[name]) for effort in one.efforts} - {""})) for name in _NOTES}
    return {"trainings": len(own), "minutes": minutes, "parameters": parameters, **texts}


def ablation_page(frame: pd.DataFrame, command: str, say: Callable[[str], str]) -> str:
    """The page as Markdown, a table for each kind of held-out images; `say` tells what a rung adds."""
    noted = ({text for texts in frame[name] for text in texts.split(", ")} - {""} for name in _NOTES)
    seeds, steps, batches, machines, commits = (", ".join(sorted(texts)) for texts in noted)
    lines = [
        "# What each step adds",
        "",
        f"`{command}`: {int(frame.trainings.sum())} trainings, {steps} steps of {batches}, seed {seeds} of first "
        f"weights and crops. Machine: {machines}." + (f" Commit: {commits}." if commits else ""),
        "",
        "Each step is a file of `configs/ablation` that extends the one before it. *Adds* is the mean paired "
        "difference, image by image, to the row above, which is several steps before where steps were left out. "
        "Intervals hold 95% of the means over resampled images; what another seed would change is not in them. All "
        "but the tuned step have the default post-processing, which suits some networks better than others: see *as "
        "is* in the [comparison](../comparisons/README.md). *Mean of modalities* has each count alike. Minutes are "
        "those of one training, empty where the weights are those of the row above. Data: "
        "[`ablation.csv`](ablation.csv).",
    ]
    titles = {FOLDS: "Out of fold", MODALITIES: "A modality that was never shown"}
    texts = {
        FOLDS: "held out by the folds of `make splits`, which have each modality on both sides where it has groups "
        "enough.",
        MODALITIES: "each predicted by a network that was trained on the other modalities alone "
        "(`make_folds.py --by modality`). A column is the modality that was left out.",
    }
    for kind, title in titles.items():
        part = frame[frame.held_out == kind]
        if len(part):
            lines += ["", f"## {title}", "", f"{part.images.iloc[0]} images, {texts[kind]}", "", *_table(part, say)]
    return "\n".join(lines) + "\n"


def _table(frame: pd.DataFrame, say: Callable[[str], str]) -> list[str]:
    columns = list(frame.columns)
    modalities = columns[columns.index("modality_mean") + 1 : columns.index("trainings")]
    modalities = [name for name in modalities if frame[name].notna().any()]
    header = ["step", "what it adds", "score (95%)", "adds (95%)", *(f"AP {t}" for t in SHOWN_THRESHOLDS)]
    header += ["mean of modalities", *(name.replace("_", " ") for name in modalities), "minutes"]
    lines = [table_line(header), table_line(["---", "---"] + ["---:"] * (len(header) - 2))]
    for row in frame.to_dict("records"):
        cells = [f"`{row['rung']}`", say(row["rung"])]
        cells += [f"**{row['score']:.3f}** ({row['low']:.3f} to {row['high']:.3f})"]
        cells += [format_difference(*(row[name] for name in DIFFERENCE))]
        cells += [f"{row[name]:.3f}" for name in (*(f"ap_{t}" for t in SHOWN_THRESHOLDS), "modality_mean", *modalities)]
        lines.append(table_line([*cells, f"{row['minutes']:.1f}" if row["trainings"] else ""]))
    return lines
