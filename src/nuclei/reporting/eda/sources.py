"""Contact sheet by source: a row for each series of images (laboratory, microscope, stain)."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from nuclei.io.tables import SOURCE
from nuclei.reporting.eda.tables import present_modalities

SHOWN = 6
"""Thumbnails of a source."""


def source_table(images: pd.DataFrame, held_out: Mapping[str, int], count: int = SHOWN) -> list[dict[str, Any]]:
    """A row for each source, the largest first, with the ids of up to `count` of its `images`.

    `held_out` is the fold of `data/splits_source.csv` by image id; it may be empty. The result is
    empty where the images have no sources.
    """
    if SOURCE not in images:
        return []
    groups = sorted(images.groupby(SOURCE), key=lambda item: (-len(item[1]), item[0]))
    return [_describe_source(str(name), group, held_out, count) for name, group in groups]


def _describe_source(name: str, group: pd.DataFrame, held_out: Mapping[str, int], count: int) -> dict[str, Any]:
    train = group[group.subset == "train"]
    own = {held_out[image_id] for image_id in group.image_id if image_id in held_out}
    counts = group.groupby(["height", "width"]).size().sort_values(ascending=False)
    sizes = [f"{height} × {width}" for height, width in counts.index]  # noqa: RUF001
    return {
        "source": name,
        "modalities": ", ".join(each.replace("_", " ") for each in present_modalities(group)),
        "train": len(train),
        "test": int((group.subset == "test").sum()),
        "pictures": int(group.group.nunique()),
        "nuclei": int(train.nuclei.sum()),
        "sizes": _shorten(sizes),
        "folds": _list_numbers(train.fold.dropna()),
        "held_out": _list_numbers(own),
        "images": choose_images(group, count),
    }


def choose_images(group: pd.DataFrame, count: int) -> list[str]:
    """Image ids from few nuclei to many; one tile of each picture, unless too few are left."""
    turn = group.groupby("group").cumcount()
    ranked = group.assign(turn=turn).sort_values(["turn", "image_id"])
    pool = ranked.head(max(count, int((turn == 0).sum()))).sort_values(["nuclei", "image_id"])
    places = np.linspace(0, len(pool) - 1, min(count, len(pool))).round().astype(int)
    return [str(image_id) for image_id in pool.iloc[np.unique(places)].image_id]


def _shorten(sizes: list[str], most: int = 3) -> str:
    more = f" and {len(sizes) - most} more" if len(sizes) > most else ""
    return ", ".join(sizes[:most]) + more


def _list_numbers(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in sorted({int(number) for number in numbers}))
