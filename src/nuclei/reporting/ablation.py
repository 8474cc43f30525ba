"""Ablation: what each step from a plain network to a good one adds, as a table and a Markdown page.

A step is a config that extends the one before it. Its networks are scored out of fold and on unseen
modalities. Unlike in `comparison`, all steps have the default post-processing, and the last has it
tuned.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nuclei.config_files import parse_config
from nuclei.data.prepared_images import Images
from nuclei.data.splits import held_out_images
from nuclei.errors import UserError
from nuclei.evaluation.bootstrap import bootstrap_interval, paired_difference
from nuclei.evaluation.metric import THRESHOLDS
from nuclei.evaluation.scores import score_image, summarise_scores
from nuclei.io.files import read_json
from nuclei.io.probability_maps import Maps, read_maps
from nuclei.io.tables import read_splits, read_table
from nuclei.postprocessing.parameters import Parameters, Tuned
from nuclei.postprocessing.watershed import segment_maps
from nuclei.progress import name_job, show_progress
from nuclei.reporting.differences import format_difference
from nuclei.reporting.leaderboard import SHOWN_THRESHOLDS
from nuclei.reporting.rendering import table_line

FOLDS, MODALITIES = "folds", "modalities"
"""Kinds of held-out images: the folds of `make splits`, and one modality after the other."""
STEP = "ablation_step"
"""Column of the step's name; `steps` are those of the optimiser."""
DIFFERENCE = ("difference", "difference_low", "difference_high")
"""Columns of the paired difference to the step before."""
TITLES = {FOLDS: "Out of fold", MODALITIES: "An unseen modality"}
KINDS = {
    FOLDS: "held out by the folds of `make splits`, which have each modality on both sides where it has groups enough.",
    MODALITIES: "each predicted by a network that was trained on the other modalities alone "
    "(`make_folds.py --by modality`). A column is the modality that was left out.",
}
NOTE = (
    "Each step is a file of `configs/ablation` that extends the one before it. *Adds* is the mean "
    "paired difference, image by image, to the row above, which is several steps before where "
    "steps were left out. Intervals hold 95% of the means over resampled images and not the "
    "variation between seeds. All but the tuned step have the default post-processing, which "
    "suits some networks better than others: see *as is* in the "
    "[comparison](../comparisons/README.md). *Mean of modalities* weights each equally. Minutes "
    "are those of one training, empty where the weights are those of the row above. Data: "
    "[`ablation.csv`](ablation.csv)."
)

_NOTED = ("seed", "steps", "batch", "hardware", "commit")


@dataclass(frozen=True)
class StepScores:
    """A step on one kind of held-out images: score records by image id, effort of each training."""

    images: dict[str, dict[str, Any]]
    efforts: list[dict[str, Any]]

    def scores(self) -> dict[str, float]:
        """Score of each image by id: the mean of its average precisions over the thresholds."""
        return {image_id: float(np.mean(record["ap"])) for image_id, record in self.images.items()}

    def by_modality(self) -> dict[str, float]:
        """Mean score of each modality, in alphabetical order."""
        scores: dict[str, list[npt.NDArray[np.float64]]] = {}
        for record in self.images.values():
            scores.setdefault(record["modality"], []).append(record["ap"])
        return {modality: float(np.mean(scores[modality])) for modality in sorted(scores)}


def score_fold(experiment: str, maps: Path, checkpoint: Path, processed: Path, splits: Path) -> dict[str, Any]:
    """Scores of a fold's held-out maps with the default post-processing, and their `effort`.

    `effort` is that of the training: experiment, seed, steps, batch, parameters, minutes, hardware,
    commit.

    Raises: UserError: maps of other images than the checkpoint's fold holds out, or of another
        size; it was
            trained on some of them.
    """
    from nuclei.models.checkpoint_file import load_checkpoint  # torch, which the table does without

    weights, table, archive = load_checkpoint(checkpoint), read_splits(splits), Maps(maps)
    ids = sorted(held_out_images(weights, checkpoint, table))
    if set(ids) != set(archive):
        raise UserError(
            f"{maps}: holds maps of {len(archive)} images, but fold {weights['fold']} of {splits} "
            f"holds out {len(ids)} others; predict the fold again"
        )
    images, parameters, records = Images(processed), Parameters(), []
    for image_id in show_progress(ids, name_job("score", experiment, weights["fold"]), "images"):
        truth = images.label_map(image_id)
        records.append(
            score_image(truth, segment_maps(read_maps(archive, image_id, truth, processed), parameters))
        )
    rows = table.set_index("image_id").loc[ids].reset_index()
    scores = summarise_scores(experiment, rows, records, {weights["fold"]: Tuned(parameters, {})})
    return {**scores.to_dict(), "effort": fold_effort(weights, checkpoint)}


def fold_effort(weights: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Effort of a checkpoint's training: its own record, config settings, minutes in log.csv."""
    log = read_table(path.parent / "log.csv", ("minutes",), "train again")
    config = parse_config(weights["config"], str(path))
    return {
        **weights["effort"],
        "experiment": config.name,
        "seed": config.training.seed,
        "steps": config.training.steps,
        "batch": config.training.batch,
        "minutes": float(log.minutes.iloc[-1]),
    }


def read_steps(paths: Iterable[Path]) -> dict[str, StepScores]:
    """Steps by name, each with the images of all folds' files, or of the tuned step's `cv.json`.

    Raises:
        UserError: a file that is missing; an image that is in two files of a step.
    """
    steps: dict[str, StepScores] = {}
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such scores; `make ablation` measures what is missing")
        summary = read_json(path)
        step = steps.setdefault(summary["experiment"], StepScores({}, []))
        twice = sorted(step.images.keys() & summary["image"].keys())
        if twice:
            raise UserError(
                f"{path}: image {twice[0]} is in another fold of {summary['experiment']} too; score again"
            )
        step.images.update(summary["image"])
        step.efforts.extend([summary["effort"]] if "effort" in summary else [])
    return steps


def measured_modalities(measured: Mapping[str, Mapping[str, StepScores]]) -> list[str]:
    """Names of all modalities in the measured images, in alphabetical order."""
    steps = [step for by_name in measured.values() for step in by_name.values()]
    return sorted({record["modality"] for step in steps for record in step.images.values()})


def ablation(measured: Mapping[str, Mapping[str, StepScores]]) -> pd.DataFrame:
    """A row for each step and kind of held-out images, in order: scores and what the step adds.

    `measured` has the steps by name, by kind. `difference` is the mean paired difference, image by
    image, to the row above; `modality_mean` weights each modality equally. `trainings` is 0 and
    `minutes` empty for a step that uses another step's weights.

    Raises:
        UserError: nothing was measured; steps of one kind that were scored on different images.
    """
    modalities = measured_modalities(measured)
    if not modalities:
        raise UserError("no scores of any step; give `make ablation` at least one of FOLDS or MODALITIES")
    rows = []
    for kind, steps in measured.items():
        before: dict[str, float] | None = None
        for name, step in sorted(steps.items()):
            scores = step.scores()
            _check_same_images(kind, name, scores, before)
            row = {
                "held_out": kind,
                STEP: name,
                "images": len(scores),
                **_score_row(step, scores, before),
            }
            by_modality = step.by_modality()
            row["modality_mean"] = float(np.mean(list(by_modality.values())))
            row |= {modality: by_modality.get(modality, np.nan) for modality in modalities}
            rows.append(row | _effort_row(name, step))
            before = scores
    return pd.DataFrame(rows)


def _check_same_images(kind: str, name: str, scores: dict[str, float], before: dict[str, float] | None) -> None:
    if before is not None and scores.keys() != before.keys():
        raise UserError(
            f"{kind}: {name} was scored on {len(scores)} images, the step before it on "
            f"{len(before)} and not on the same; run `make ablation` with one FOLDS and one "
            "MODALITIES for all ABLATION_STEPS"
        )


def _score_row(step: StepScores, scores: dict[str, float], before: dict[str, float] | None) -> dict[str, float]:
    """Score with its interval, paired difference to the scores `before`, and average precisions."""
    low, high = bootstrap_interval(np.array(list(scores.values())))
    row = {"score": float(np.mean(list(scores.values()))), "low": low, "high": high}
    difference = (np.nan, np.nan, np.nan) if before is None else paired_difference(scores, before)
    row |= dict(zip(DIFFERENCE, difference, strict=True))
    ap = np.mean([record["ap"] for record in step.images.values()], axis=0)
    return row | {f"ap_{threshold:.2f}": float(value) for threshold, value in zip(THRESHOLDS, ap, strict=True)}


def _effort_row(name: str, step: StepScores) -> dict[str, Any]:
    own = [effort for effort in step.efforts if effort["experiment"] == name]
    minutes = float(np.mean([effort["minutes"] for effort in own])) if own else np.nan
    parameters = own[0]["parameters"] if own else np.nan
    texts = {key: ", ".join(sorted({str(effort[key]) for effort in step.efforts} - {""})) for key in _NOTED}
    return {"trainings": len(own), "minutes": minutes, "parameters": parameters, **texts}


def ablation_page(
    frame: pd.DataFrame, modalities: Sequence[str], command: str, describe: Callable[[str], str]
) -> str:
    """The page in Markdown, a table for each kind of held-out images.

    `modalities` are the columns that hold one; `describe` gives the title of a step.
    """
    seeds, steps, batches, machines, commits = (_noted(frame[name]) for name in _NOTED)
    facts = f"`{command}`: {int(frame.trainings.sum())} trainings, {steps} steps of {batches}, "
    facts += f"seed {seeds} of first weights and crops. Machine: {machines}."
    facts += f" Commit: {commits}." if commits else ""
    lines = ["# What each step adds", "", facts, "", NOTE]
    for kind, title in TITLES.items():
        part = frame[frame.held_out == kind]
        if len(part):
            lines += ["", f"## {title}", "", f"{part.images.iloc[0]} images, {KINDS[kind]}", ""]
            lines += _table(part, modalities, describe)
    return "\n".join(lines) + "\n"


def _noted(column: pd.Series) -> str:
    """All values of a column of comma-separated texts, once each."""
    texts = {text for cell in column.dropna() for text in str(cell).split(", ")}
    return ", ".join(sorted(texts - {""}))


def _table(frame: pd.DataFrame, modalities: Sequence[str], describe: Callable[[str], str]) -> list[str]:
    shown = [name for name in modalities if frame[name].notna().any()]
    header = [
        "step",
        "what it adds",
        "score (95%)",
        "adds (95%)",
        *(f"AP {t}" for t in SHOWN_THRESHOLDS),
    ]
    header += ["mean of modalities", *(name.replace("_", " ") for name in shown), "minutes"]
    lines = [table_line(header), table_line(["---", "---"] + ["---:"] * (len(header) - 2))]
    for row in frame.to_dict("records"):
        cells = [f"`{row[STEP]}`", describe(row[STEP])]
        cells += [f"**{row['score']:.3f}** ({row['low']:.3f} to {row['high']:.3f})"]
        cells += [format_difference(*(row[name] for name in DIFFERENCE))]
        cells += [
            f"{row[name]:.3f}" for name in (*(f"ap_{t}" for t in SHOWN_THRESHOLDS), "modality_mean", *shown)
        ]
        lines.append(table_line([*cells, f"{row['minutes']:.1f}" if row["trainings"] else ""]))
    return lines
