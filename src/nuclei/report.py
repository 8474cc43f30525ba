"""The leaderboard: experiments compared by their out-of-fold scores on the same images."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nuclei.artifacts import read_json, read_table

RESAMPLES = 2000
"""Bootstrap samples of images behind each interval."""


def read_experiments(runs: Path) -> list[dict[str, Any]]:
    """What `cv.json` says of every scored experiment in a folder of runs, the best score first.

    Raises:
        ValueError: no experiment was scored; experiments scored on other images than the best one.
    """
    experiments = [read_json(path) for path in sorted(runs.glob("*/cv.json"))]
    if not experiments:
        raise ValueError(f"{runs}: no experiment has a cv.json; run `make submission`")
    experiments.sort(key=lambda experiment: (-experiment["score"], experiment["experiment"]))
    images = set(experiments[0]["image"])
    for experiment in experiments[1:]:
        if set(experiment["image"]) != images:
            raise ValueError(
                f"{runs}: {experiment['experiment']} was scored on {len(experiment['image'])} images, "
                f"{experiments[0]['experiment']} on {len(images)} others; delete the older cv.json and make it again"
            )
    return experiments


def leaderboard(experiments: list[dict[str, Any]], efforts: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """One row an experiment, best first: score with a 95% interval, by modality, at thresholds, and its effort.

    `behind_low` and `behind_high` bound the mean of the paired difference to the best, image by image; where they
    enclose 0, the two cannot be told apart on these images. `efforts` has parameters, minutes and hardware by name.
    """
    best = experiments[0]
    rows = []
    for experiment in experiments:
        name = experiment["experiment"]
        scores, best_scores = _image_scores(experiment, best), _image_scores(best, best)
        low, high = bootstrap_interval(scores)
        behind_low, behind_high = bootstrap_interval(best_scores - scores)
        row: dict[str, Any] = {"experiment": name, "score": experiment["score"], "low": low, "high": high}
        row |= {"behind_low": behind_low, "behind_high": behind_high}
        row |= {f"ap_{threshold}": experiment["ap"][threshold] for threshold in ("0.50", "0.75", "0.90")}
        row |= {modality: part["score"] for modality, part in sorted(experiment["modality"].items())}
        rows.append(row | efforts.get(name, {}))
    return pd.DataFrame(rows)


def bootstrap_interval(values: np.ndarray) -> tuple[float, float]:
    """Bounds between which 95% of the means of resampled values lie (percentile bootstrap, Efron 1979)."""
    generator = np.random.default_rng(0)
    means = values[generator.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def training_effort(folder: Path) -> dict[str, Any]:
    """Parameters of the network, minutes over all folds and the hardware of a trained run; empty for one without."""
    from nuclei.inference import load_checkpoint

    efforts = [load_checkpoint(path)["effort"] for path in sorted(folder.glob("fold_*/best.pt"))]
    if not efforts:
        return {}
    logs = [read_table(path, ("minutes",), "train again") for path in sorted(folder.glob("fold_*/log.csv"))]
    return {
        "parameters": efforts[0]["parameters"],
        "minutes": round(sum(float(log.minutes.iloc[-1]) for log in logs), 1),
        "hardware": ", ".join(sorted({effort["hardware"] for effort in efforts})),
    }


def leaderboard_page(frame: pd.DataFrame, images: int) -> str:
    """The leaderboard as Markdown."""
    modalities = [column for column in frame.columns if column.endswith(("_fluorescence", "_tissue"))]
    header = ["experiment", "score (95% interval)", "AP 0.50", "0.75", "0.90", *(_title(name) for name in modalities)]
    header += ["parameters", "minutes", "hardware"]
    lines = [
        "# Leaderboard",
        "",
        f"Competition metric out of fold on {images} training images: each is predicted by the one network that never",
        "saw it or its relatives, with post-processing tuned on the other folds. Written by `make leaderboard`.",
        "",
        _line(header),
        _line(["---"] + ["---:"] * (len(header) - 2) + ["---"]),
    ]
    for row in frame.to_dict("records"):
        cells = [f"[{row['experiment']}]({row['experiment']}.csv)"]
        cells += [f"**{row['score']:.4f}** ({row['low']:.3f} to {row['high']:.3f})"]
        cells += [f"{row[column]:.3f}" for column in ("ap_0.50", "ap_0.75", "ap_0.90", *modalities)]
        cells += [_number(row.get("parameters")), _number(row.get("minutes")), str(row.get("hardware") or "")]
        lines.append(_line([cell if cell != "nan" else "" for cell in cells]))
    return "\n".join([*lines, "", *_differences(frame)]) + "\n"


def _differences(frame: pd.DataFrame) -> list[str]:
    best = frame.iloc[0]
    lines = [f"How far behind {best.experiment} the others are (95% interval of the mean over images):", ""]
    for row in frame.iloc[1:].itertuples():
        verdict = "cannot be told apart" if row.behind_low <= 0 <= row.behind_high else "worse"
        lines.append(f"- {row.experiment}: {row.behind_low:.4f} to {row.behind_high:.4f}, {verdict}")
    return lines if len(frame) > 1 else []


def _image_scores(experiment: dict[str, Any], order: dict[str, Any]) -> np.ndarray:
    return np.array([np.mean(experiment["image"][image_id]["ap"]) for image_id in order["image"]])


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value / 1e6:.2f} M" if value > 1e5 else f"{value:.0f}"


def _title(modality: str) -> str:
    return modality.replace("_", " ")


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
