"""Tables of the statistics for a page: modalities, folds, sizes, diameters and touching nuclei."""

from typing import Any

import numpy as np
import pandas as pd

from nuclei.data.modality import MODALITIES
from nuclei.reporting.eda.statistics import DataStatistics

_OCTAVES = 2 ** np.arange(2, 7.51, 0.5)
"""Limits of the histogram of diameters in pixels; the first and last bins include all beyond."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def present_modalities(images: pd.DataFrame) -> list[str]:
    """The modalities of images in their usual order, others after them."""
    found = set(images.modality)
    return [name for name in MODALITIES if name in found] + sorted(found - set(MODALITIES))


def overview(statistics: DataStatistics, modalities: list[str]) -> list[dict[str, Any]]:
    """A row a modality and one for all: images, nuclei, sizes, fractions touching or cut off."""
    rows = []
    for name in [*modalities, ""]:
        images = statistics.images[statistics.images.modality == name] if name else statistics.images
        nuclei = statistics.nuclei[statistics.nuclei.modality == name] if name else statistics.nuclei
        counts = images.nuclei.dropna()
        rows.append(
            {
                "modality": name,
                "train": int((images.subset == "train").sum()),
                "test": int((images.subset == "test").sum()),
                "nuclei": len(nuclei),
                "per_image": float(counts.median()) if len(counts) else None,
                **{
                    f"{column}_{int(q * 100)}": float(nuclei[column].quantile(q)) if len(nuclei) else None
                    for column in ("area", "diameter")
                    for q in (0.05, 0.5, 0.95)
                },
                **touching_fractions(nuclei),
                "cut": float(nuclei.cut.mean()) if len(nuclei) else None,
            }
        )
    return rows


def touching_fractions(nuclei: pd.DataFrame) -> dict[str, float | None]:
    """Fraction of nuclei that touch another one, and of all boundaries that are against another."""
    if not len(nuclei):
        return {"touching": None, "boundary": None}
    return {
        "touching": float((nuclei.touching_sides > 0).mean()),
        "boundary": float(nuclei.touching_sides.sum() / max(nuclei.sides.sum(), 1)),
    }


def fold_table(images: pd.DataFrame, modalities: list[str]) -> dict[str, Any]:
    """Images of each modality by fold (or training set) and in the test set; then totals."""
    places = place_images(images)
    names = list(dict.fromkeys(sorted(places, key=lambda place: (place == "test", place))))
    rows = [(name.replace("_", " "), (images.modality == name).groupby(places).sum()) for name in modalities]
    rows.append(("images", images.groupby(places).size()))
    rows.append(("pictures", images.groupby(places).group.nunique()))
    rows.append(("nuclei", images.groupby(places).nuclei.sum()))
    counted: list[dict[str, Any]] = []
    for name, row in rows:
        counts: dict[str, int | None] = {place: int(row[place]) for place in names}
        if name == "nuclei" and "test" in counts:
            counts["test"] = None  # test images have no annotation
        counted.append({"name": name, "counts": list(counts.values())})
    return {"names": names, "has_folds": bool(images.fold.notna().any()), "rows": counted}


def size_table(images: pd.DataFrame) -> list[dict[str, Any]]:
    """Image sizes, most frequent first, with the images of each subset and their modalities."""
    rows = []
    for (height, width), group in images.groupby(["height", "width"]):
        subsets = group.subset.value_counts()
        names = ", ".join(name.replace("_", " ") for name in present_modalities(group))
        row = {"height": int(height), "width": int(width), "modalities": names}
        rows.append(row | {subset: int(subsets.get(subset, 0)) for subset in ("train", "test")})
    return sorted(rows, key=lambda row: (-row["train"] - row["test"], row["height"], row["width"]))


def diameter_classes(nuclei: pd.DataFrame, modalities: list[str]) -> dict[str, Any]:
    """Histogram of equivalent diameters in half octaves: lower `limits`, `fractions` a modality."""
    fractions = {}
    for name in modalities:
        diameters = nuclei.diameter[nuclei.modality == name].to_numpy(float)
        counts, _ = np.histogram(np.clip(diameters, _OCTAVES[0], _OCTAVES[-1]), _OCTAVES)
        if counts.sum():
            fractions[name] = [round(float(count), 4) for count in counts / counts.sum()]
    return {"limits": [round(float(limit), 1) for limit in _OCTAVES[:-1]], "fractions": fractions}


def ranges(table: pd.DataFrame, column: str, modalities: list[str]) -> list[dict[str, Any]]:
    """Quantiles of a column by modality, without empty ones: name, count and quantiles of each."""
    groups = [(name, table[column][table.modality == name].astype(float)) for name in modalities]
    return [
        {
            "name": name,
            "count": len(values),
            "quantiles": [round(float(q), 2) for q in values.quantile(_QUANTILES)],
        }
        for name, values in groups
        if len(values)
    ]


def touching_by_fold(nuclei: pd.DataFrame, modalities: list[str]) -> list[dict[str, Any]]:
    """Fractions of touching nuclei and boundaries of each modality, in total and by fold."""
    rows = []
    for name in modalities:
        own = nuclei[nuclei.modality == name]
        if len(own):
            folds = [{"fold": int(fold), **touching_fractions(part)} for fold, part in own.groupby("fold")]
            rows.append({"name": name, "nuclei": len(own), **touching_fractions(own), "folds": folds})
    return rows


def place_images(images: pd.DataFrame) -> pd.Series:
    """The fold of each image, or its subset where it has none."""
    return images.fold.map(lambda fold: f"fold {fold}", na_action="ignore").astype(object).fillna(images.subset)


def count_findings(findings: pd.DataFrame, reason: str) -> dict[str, int]:
    """Number of images with a finding of this reason, and sum of their numbers."""
    own = findings[findings.reason == reason]
    return {"images": len(own), "number": int(own.number.sum())}
