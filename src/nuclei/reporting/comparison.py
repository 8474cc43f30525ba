"""Networks compared under one budget: score and cost on one fold, as table and Markdown page.

Scores are those of the submission's path without test-time augmentation. How confident a network is
depends on its loss, so that no fixed threshold is fair to all: thresholds are tuned on one half of
the held-out images for the other half. With the default thresholds, some networks have no nucleus,
and no single step from there finds one: the search starts at the best of several points.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nuclei.arrays import Float64Array, LabelMap, UInt8Array
from nuclei.data.prepared_images import Images
from nuclei.data.splits import HELD_OUT, SEEN, UNSEEN, held_out_images
from nuclei.errors import UserError
from nuclei.evaluation.bootstrap import bootstrap_interval, paired_difference
from nuclei.evaluation.metric import average_precision
from nuclei.evaluation.score_cache import Scores
from nuclei.evaluation.tuning import GRID, START, search
from nuclei.io.files import write_text
from nuclei.io.locks import folder_lock
from nuclei.io.spreadsheets import write_spreadsheet
from nuclei.io.tables import read_splits, read_table
from nuclei.postprocessing.parameters import Parameters
from nuclei.postprocessing.watershed import segment_maps
from nuclei.progress import Progress, name_job
from nuclei.reporting.differences import format_difference
from nuclei.reporting.rendering import table_line

# The table and the page do not need torch, which takes seconds to load.
if TYPE_CHECKING:
    import torch

    from nuclei.inference.predictor import Predictor


STARTS = [
    Parameters(min_mean_probability=confidence, border_weight=border)
    for border in (Parameters.border_weight, 0.0)
    for confidence in (Parameters.min_mean_probability, 0.0)
]
"""Starting points of the search, the default first: with and without a minimum confidence and the
border."""
SEARCHED = {name: GRID[name] for name in ("foreground_threshold", "seed_threshold", "border_weight")}
"""Parameters that are searched: of the mask, of the watershed markers, and the weight of the
border."""
IMAGE_SIZE = 256
"""Height and width of the image whose multiply-adds and time are given."""
TIMED_PREDICTIONS = 7
"""Predictions of which the fastest counts: other programs only ever make one slower."""
BASE = "unet_plain"
"""The variant that the others differ from."""
AGAINST = ("against", "against_low", "against_high")
"""Columns of the difference to it."""
DICE_THRESHOLD = 127
"""Foreground above this of 255 counts as a nucleus in the Dice coefficient."""
OF_ONE_RUN = ("image_score", "image_half", "tuned", "checkpoint")
"""Keys of measured.json that the table lacks."""
TABLES = ("compare", "learning_curve")
"""Tables of a comparison's folder."""
COMPARE_NOTE = (
    "Every variant has as many steps and crops. The intervals hold 95% of the means over "
    "resampled images and not the variation between seeds, for which see the spread at all images "
    f"below. *Against plain* is the mean paired difference to `{BASE}`. The score has its "
    "thresholds tuned on the other half of the held-out images, *as is* has the default ones. "
    "Dice is that of all nuclei as one. Speeds are those of the fastest interval, predictions of "
    f"{IMAGE_SIZE}x{IMAGE_SIZE} pixels one by one; multiply-adds are for such an image. Memory is "
    "the peak of the training, of the GPU or else of the process."
)
CURVE_NOTE = (
    "The small residual UNet (`configs/compare/resunet.toml`) on nested subsets with the same "
    "fraction of each modality; a seed decides the images, the first weights and the crops. "
    "Spread is the standard deviation over the seeds. *Seen sources* are those of which training "
    "saw other images, *unseen sources* are held out as a whole; both scores are with the "
    "post-processing at which the search starts."
)


def measure_checkpoint(path: Path, processed: Path, splits: Path, device: "torch.device") -> dict[str, Any]:
    """Score of a checkpoint on the images that its fold holds out, and its cost.

    Raises: UserError: no checkpoint; it was trained on images that the splits hold out; fewer than
        two held out.
    """
    from nuclei.inference.predictor import load_predictor, predict_images
    from nuclei.models.checkpoint_file import load_checkpoint
    from nuclei.models.summary import summarise

    checkpoint, table = load_checkpoint(path), read_splits(splits)
    ids = sorted(held_out_images(checkpoint, path, table))
    predictor, images = load_predictor(checkpoint, str(path), device), Images(processed)
    job = name_job("predict", predictor.config.name, checkpoint["fold"])
    maps = dict(predict_images(predictor, images, ids, job))
    truths = {image_id: images.label_map(image_id) for image_id in ids}
    halves = halve(table.set_index("image_id").loc[ids])
    default, fitted, tuned = cross_fit(maps, truths, halves, predictor.config.name)
    kinds = dict(zip(table.image_id, table[HELD_OUT], strict=True)) if HELD_OUT in table else {}
    config, effort = predictor.config, checkpoint["effort"]
    statistics, _ = summarise(config.model, IMAGE_SIZE)
    log = read_table(path.parent / "log.csv", ("minutes", "images_per_second", "peak_mib"), "train again")
    return {
        "experiment": config.name,
        "training_images": len(checkpoint["trained_on"]),
        "seed": config.training.seed,
        "steps": config.training.steps,
        "batch": config.training.batch,
        "score": float(fitted.mean()),
        "score_default": float(default.mean()),
        **score_by_kind(maps, truths, kinds),
        "dice": float(np.mean([dice(maps[image_id], truths[image_id]) for image_id in ids])),
        "image_score": dict(zip(ids, fitted.tolist(), strict=True)),
        "image_half": dict(zip(ids, np.where(halves, 0, 1).tolist(), strict=True)),
        "tuned": [asdict(parameters) for parameters in tuned],
        "checkpoint": str(path),
        "parameters": effort["parameters"],
        "multiply_adds": statistics.total_mult_adds,
        "training_speed": float(log.images_per_second.max()),
        "inference_speed": inference_speed(predictor),
        "peak_mib": int(log.peak_mib.max()),
        "minutes": float(log.minutes.iloc[-1]),
        "hardware": effort["hardware"],
        "commit": effort["commit"],
    }


def score_by_kind(
    maps: Mapping[str, UInt8Array], truths: Mapping[str, LabelMap], kinds: Mapping[str, str]
) -> dict[str, float]:
    """Mean scores of the images of seen and of unseen sources, with the post-processing START.

    `kinds` is the column `held_out` of `splits.assign_seen_and_unseen` by image id; the result is
    empty where it is. START is used since no held-out image chose it.
    """
    scores: dict[str, list[float]] = {SEEN: [], UNSEEN: []} if kinds else {}
    for image_id, truth in truths.items() if kinds else ():
        found = average_precision(truth, segment_maps(maps[image_id], START))
        scores[kinds[image_id]].append(float(found.mean()))
    return {kind: float(np.mean(values)) for kind, values in scores.items()}


def halve(table: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Rows of the first of two halves, (N,) bool, stratified by modality; groups stay together.

    Raises:
        UserError: all images are of one group.
    """
    groups = table.sort_values(["modality", "group"]).group.unique()
    if len(groups) < 2:
        raise UserError(
            f"{len(table)} held-out images of one group: thresholds cannot be searched on other images"
        )
    return np.asarray(table.group.isin(groups[::2]), bool)


def cross_fit(
    maps: dict[str, UInt8Array],
    truths: dict[str, LabelMap],
    first: npt.NDArray[np.bool_],
    experiment: str = "",
) -> tuple[Float64Array, Float64Array, list[Parameters]]:
    """Scores (N,) with default thresholds, with thresholds tuned on the other half, and these.

    `first` (N,) bool are the images of one half; `experiment` names the progress.
    """

    def run(jobs: Iterable[tuple[str, list[Parameters]]]) -> Iterator[list[Float64Array]]:
        for image_id, candidates in jobs:
            yield [
                average_precision(truths[image_id], segment_maps(maps[image_id], some)) for some in candidates
            ]

    rows = np.arange(len(maps))
    with Progress(name_job("tune", experiment), "segmentations") as progress:
        scores: Scores[Parameters] = Scores(list(maps), run, progress.update)
        scores.fill([Parameters()], rows)
        fitted, tuned = np.empty(len(rows)), []
        for part in (first, ~first):
            scores.fill(STARTS, rows[~part])
            start = max(STARTS, key=lambda start: scores.mean(start, rows[~part]))  # the first of equals
            chosen = search(scores, rows[~part], rows[~part], SEARCHED, start)
            scores.fill([chosen], rows[part])
            fitted[part] = scores.by_image(chosen, rows[part])
            tuned.append(chosen)
    return scores.by_image(Parameters(), rows), fitted, tuned


def dice(maps: UInt8Array, truth: LabelMap) -> float:
    """Dice coefficient of the foreground map (first of (3, H, W)) at 0.5; 1 if both are empty."""
    found, there = maps[0] > DICE_THRESHOLD, truth > 0
    total = int(found.sum()) + int(there.sum())
    return 2 * int((found & there).sum()) / total if total else 1.0


def inference_speed(predictor: "Predictor") -> float:
    """Images (IMAGE_SIZE x IMAGE_SIZE pixels) a second one by one, best of TIMED_PREDICTIONS."""
    image = np.random.default_rng(0).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)

    def seconds() -> float:
        started = time.perf_counter()
        predictor(image)  # its answer is on the CPU: a GPU has finished
        return time.perf_counter() - started

    seconds()
    return 1 / min(seconds() for _ in range(TIMED_PREDICTIONS))


def comparison(measured: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row a variant, best first: scores with their 95% intervals over the images, and costs.

    `against` is the mean paired difference, image by image, to BASE; empty where that was not
    measured.
    """
    base = next((one["image_score"] for one in measured if one["experiment"] == BASE), None)
    rows = []
    for one in sorted(measured, key=lambda one: (-one["score"], one["experiment"])):
        row = {key: value for key, value in one.items() if key not in OF_ONE_RUN}
        row["images"] = len(one["image_score"])
        scores = np.array(list(one["image_score"].values()))
        row["low"], row["high"] = bootstrap_interval(scores)
        if base is not None and one["experiment"] != BASE:
            row |= dict(zip(AGAINST, paired_difference(one["image_score"], base), strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def learning_curve(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation (over seeds) of the scores by number of training images.

    Scores on `seen` and `unseen` sources are there where the runs have them.
    """
    curve = frame.groupby("training_images").agg(
        seeds=("seed", "size"), score=("score", "mean"), score_spread=("score", "std"), lowest=("score", "min"),
        highest=("score", "max"), dice=("dice", "mean"), dice_spread=("dice", "std"),
    )  # fmt: skip
    for kind in (SEEN, UNSEEN):
        if kind in frame:
            grouped = frame.groupby("training_images")[kind]
            curve[kind], curve[f"{kind}_spread"] = grouped.mean(), grouped.std()
    return curve.reset_index()


def update_comparison(
    folder: Path,
    name: str,
    frame: pd.DataFrame,
    draw: Callable[[Path], None],
    describe: Callable[[str], str],
) -> None:
    """Writes the table `name` of a comparison: its plot, the page of all tables and, last, its CSV.

    Other processes may write other tables of the folder meanwhile: one at a time, so that the page
    has them all. `draw` writes the plot; `describe` gives the title of a variant.
    """
    with folder_lock(folder):
        tables = {other: pd.read_csv(path) for other in TABLES if (path := folder / f"{other}.csv").is_file()}
        tables[name] = frame
        draw(folder / f"{name}.svg")
        write_text(folder / "README.md", comparison_page(tables, describe))
        write_spreadsheet(folder / f"{name}.csv", frame.round(6))


def comparison_page(tables: Mapping[str, pd.DataFrame], describe: Callable[[str], str]) -> str:
    """Markdown page of the folder, of the TABLES it has; `describe` gives a variant's title."""
    variants, curve = (tables.get(name) for name in TABLES)
    lines = ["# Networks compared under one budget", ""]
    if variants is not None:
        lines += [*_budget(variants, COMPARE_NOTE), "", *_variant_table(variants, describe)]
        lines += ["", "![](compare.svg)", ""]
    if curve is not None:
        lines += ["## More images", "", *_budget(curve, CURVE_NOTE), ""]
        lines += [*_curve_table(learning_curve(curve)), "", "![](learning_curve.svg)", ""]
    return "\n".join(lines)


def _budget(frame: pd.DataFrame, note: str) -> list[str]:
    first = frame.iloc[0]
    machines, commits = (
        ", ".join(sorted(set(frame[name].astype(str)) - {"nan"})) for name in ("hardware", "commit")
    )
    facts = f"`{first.command}`: {first.steps} steps of {first.batch}, one fold held out "
    facts += f"({first.images} images), {frame.training_images.max()} images to train on at most. "
    facts += f"Machine: {machines}." + (f" Commit: {commits}." if commits else "")
    return [facts, "", note]


def _variant_table(frame: pd.DataFrame, describe: Callable[[str], str]) -> list[str]:
    header = [
        "variant",
        "what it is",
        "score (95%)",
        "against plain (95%)",
        "as is",
        "Dice",
        "parameters",
    ]
    header += ["multiply-adds", "images/s in training", "in prediction", "memory", "minutes"]
    lines = [table_line(header), table_line(["---", "---"] + ["---:"] * (len(header) - 2))]
    for row in frame.itertuples():
        cells = [f"`{row.experiment}`", describe(row.experiment)]
        cells += [f"**{row.score:.3f}** ({row.low:.3f} to {row.high:.3f})"]
        cells += [format_difference(*(getattr(row, name, np.nan) for name in AGAINST))]
        cells += [f"{row.score_default:.3f}", f"{row.dice:.3f}", f"{row.parameters / 1e6:.2f} M"]
        cells += [
            f"{row.multiply_adds / 1e9:.2f} G",
            f"{row.training_speed:.1f}",
            f"{row.inference_speed:.1f}",
        ]
        cells += [f"{row.peak_mib} MiB", f"{row.minutes:.1f}"]
        lines.append(table_line(cells))
    return lines


def _curve_table(curve: pd.DataFrame) -> list[str]:
    header = ["training images", "seeds", "score", "spread", "lowest", "highest", "Dice", "spread"]
    kinds = [kind for kind in (SEEN, UNSEEN) if kind in curve]
    for kind in kinds:
        header += [f"{kind} sources", "spread"]
    lines = [table_line(header), table_line(["---:"] * len(header))]
    for row in curve.itertuples():
        numbers = [row.score, row.score_spread, row.lowest, row.highest, row.dice, row.dice_spread]
        numbers += [getattr(row, name) for kind in kinds for name in (kind, f"{kind}_spread")]
        cells = [
            str(row.training_images),
            str(row.seeds),
            *("" if np.isnan(x) else f"{x:.3f}" for x in numbers),
        ]
        lines.append(table_line(cells))
    return lines
