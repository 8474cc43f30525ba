"""Plots of the comparison as SVG files. Equal tables give equal bytes."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from nuclei.io.files import atomic_path
from nuclei.reporting.comparison import learning_curve

FAMILY_COLOURS = {"unet": "#2f6db3", "resunet": "#2f6db3", "lite0": "#d9772b"}
"""By the first part of a variant's name: networks trained from scratch, and those with a pretrained
encoder."""
KIND_COLOURS = {"seen": "#2f6db3", "unseen": "#d9772b"}
"""Of the scores on seen and on unseen sources."""
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "svg.hashsalt": "nuclei",
    "figure.facecolor": "white",
}
COSTS = {"dice": "Dice", "multiply_adds": "multiply-adds, G", "training_speed": "images/s in training",
         "peak_mib": "memory, MiB"}  # fmt: skip


def plot_comparison(path: Path, frame: pd.DataFrame) -> None:
    """Score of each variant, best first, with its 95% interval over the images, and its costs."""
    colours = [FAMILY_COLOURS.get(name.split("_")[0], "#555555") for name in frame.experiment]
    places = range(len(frame))
    with plt.rc_context(STYLE):
        figure, (first, *others) = plt.subplots(
            1, 1 + len(COSTS), sharey=True, figsize=(13, 1.2 + 0.27 * len(frame)), layout="constrained",
            width_ratios=[2.2] + [1] * len(COSTS),
        )  # fmt: skip
        first.hlines(places, frame.low, frame.high, colors=colours, linewidth=2)
        first.scatter(frame.score, places, c=colours, s=26, zorder=3)
        first.set_yticks(places, frame.experiment)
        first.invert_yaxis()
        first.set_xlabel("score, with its 95% interval over resampled images")
        for axes, (column, title) in zip(others, COSTS.items(), strict=True):
            values = frame[column] / 1e9 if column == "multiply_adds" else frame[column]
            axes.barh(places, values, color=colours, height=0.6)
            axes.set_xlabel(title)
            axes.tick_params(axis="y", length=0)
        _save(figure, path)


def plot_learning_curve(path: Path, frame: pd.DataFrame) -> None:
    """Score and Dice against the number of training images: each run, mean, standard deviation.

    The score is drawn on seen and on unseen sources where the runs have both.
    """
    curve = learning_curve(frame)
    kinds = {name: colour for name, colour in KIND_COLOURS.items() if name in curve}
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
        for axes, columns, title in (
            (panels[0], kinds or {"score": FAMILY_COLOURS["unet"]}, "competition score"),
            (panels[1], {"dice": FAMILY_COLOURS["unet"]}, "Dice"),
        ):
            for column, colour in columns.items():
                _plot_spread(axes, curve, frame, column, colour)
            if len(columns) > 1:
                axes.legend()
            axes.set_ylabel(title)
            _scale_images(axes, curve.training_images)
        _save(figure, path)


def _plot_spread(axes: Axes, curve: pd.DataFrame, frame: pd.DataFrame, column: str, colour: str) -> None:
    mean, spread = curve[column], curve[f"{column}_spread"].fillna(0)
    axes.fill_between(curve.training_images, mean - spread, mean + spread, color=colour, alpha=0.2)
    label = f"{column} sources" if column in KIND_COLOURS else column
    axes.plot(curve.training_images, mean, color=colour, marker="o", label=label)
    axes.scatter(frame.training_images, frame[column], color="#555555", s=10, zorder=3)


def _scale_images(axes: Axes, counts: pd.Series) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("training images")


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    plt.close(figure)
