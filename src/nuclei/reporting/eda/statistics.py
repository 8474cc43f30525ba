"""Statistics of prepared data: size, modality, fold, nuclei and findings of each image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nuclei.data.intensity import to_display
from nuclei.data.prepare import KNOWN_BAD
from nuclei.data.prepared_images import Images
from nuclei.data.splits import check_splits
from nuclei.io.parallel import open_pool
from nuclei.io.tables import MASK_CONFLICT_COLUMNS, SOURCE, read_splits, read_table
from nuclei.progress import show_progress
from nuclei.reporting.eda.annotation_checks import (
    REASONS,
    Finding,
    find_suspicious,
    find_unlabelled,
    measure_nuclei,
)

_COUNTED = ("hole", "pieces", "huge", "tiny", "unlabelled")


@dataclass(frozen=True)
class DataStatistics:
    """Tables of images, nuclei and findings; the last two name the image in the column image_id."""

    images: pd.DataFrame
    nuclei: pd.DataFrame
    """label, area, diameter, sides, touching_sides and cut, with modality and fold of the image."""
    findings: pd.DataFrame
    """image_id, reason, number, words and labels, with modality and fold; the most severe first."""
    settled: bool
    """Whether overlaps and covered masks were recorded when the masks were merged."""

    @property
    def labelled(self) -> pd.DataFrame:
        """The training images' rows."""
        return self.images[self.images.subset == "train"]


class _ImageMeasurer:
    """Measures one image after the other; opened once in each worker."""

    def __init__(self, processed: Path) -> None:
        self.images = Images(processed)

    def __call__(self, image_id: str) -> tuple[dict[str, Any], dict[str, Any], list[Finding]]:
        """The image's row, the columns of its nuclei, and its findings."""
        label_map = self.images.label_map(image_id)
        unlabelled = int(find_unlabelled(to_display(self.images.image(image_id)), label_map).max(initial=0))
        nuclei = measure_nuclei(label_map)
        findings = find_suspicious(nuclei, unlabelled)
        counts = {finding.reason: finding.number for finding in findings}
        columns = {
            "label": nuclei.labels,
            "area": nuclei.areas,
            "diameter": nuclei.diameters,
            "sides": nuclei.sides,
            "touching_sides": nuclei.touching_sides,
            "cut": nuclei.cut > 0,
        }
        touching = nuclei.touching_sides > 0
        row = {
            "image_id": image_id,
            "nuclei": len(nuclei.labels),
            "foreground": float((label_map > 0).mean()),
            "area_smallest": nuclei.areas.min() if len(nuclei.areas) else None,
            "area_median": float(np.median(nuclei.areas)) if len(nuclei.areas) else None,
            "area_largest": nuclei.areas.max() if len(nuclei.areas) else None,
            "diameter_median": float(np.median(nuclei.diameters)) if len(nuclei.areas) else None,
            "touching": int(touching.sum()),
            "touching_fraction": float(touching.mean()) if len(touching) else None,
            "touching_boundary": float(nuclei.touching_sides.sum() / max(nuclei.sides.sum(), 1)),
            "cut": int((nuclei.cut > 0).sum()),
            **{reason: counts.get(reason, 0) for reason in _COUNTED},
        }
        return row, columns, findings


def collect_statistics(processed: Path, splits: Path | None, workers: int = 1) -> DataStatistics:
    """Statistics of all images of `processed`, in the order of its index; folds only with `splits`.

    Raises:
        UserError: files that are missing, cannot be read or do not fit each other.
    """
    index = Images(processed).index
    folds: dict[str, int] = {}
    if splits is not None:
        table = read_splits(splits)
        check_splits(table, index)
        folds = dict(zip(table.image_id, table.fold.tolist(), strict=True))
    ids = list(index.image_id[index.subset == "train"])
    with open_pool(workers, _ImageMeasurer, processed) as run:
        measured_images = list(show_progress(run(ids), "measure  images and nuclei", "images", len(ids)))
    columns = ["image_id", "subset", "modality", "group", "height", "width", SOURCE]
    images = index[[name for name in columns if name in index]].copy()
    images.insert(2, "fold", images.image_id.map(folds).astype("Int64"))
    measured = pd.DataFrame([row for row, _, _ in measured_images])
    images = images.merge(measured, on="image_id", how="left", validate="one_to_one")
    whole = ["nuclei", "area_smallest", "area_largest", "touching", "cut", *_COUNTED]
    images = images.astype(dict.fromkeys(whole, "Int64"))
    settled = _read_settled(processed)
    known = pd.DataFrame(columns=list(MASK_CONFLICT_COLUMNS)) if settled is None else settled
    images = images.merge(
        known.astype({"contested_pixels": "Int64", "left_out": "string"}), on="image_id", how="left"
    )
    findings = _collect_findings(ids, [found for _, _, found in measured_images], settled)
    reasons = findings.groupby("image_id").reason.agg("; ".join)
    images["suspicions"] = images.image_id.map(reasons)
    place = images.set_index("image_id")[["modality", "fold"]]
    nuclei = pd.concat(
        [pd.DataFrame({"image_id": row["image_id"], **columns}) for row, columns, _ in measured_images]
    )
    return DataStatistics(
        images,
        nuclei.join(place, on="image_id").reset_index(drop=True),
        findings.join(place, on="image_id").reset_index(drop=True),
        settled is not None,
    )


def _read_settled(processed: Path) -> Any:
    path = processed / "settled.csv"
    if not path.is_file():
        return None
    return read_table(path, MASK_CONFLICT_COLUMNS, "run `make data` again")[list(MASK_CONFLICT_COLUMNS)]


def _collect_findings(
    ids: list[str], looked: list[list[Finding]], settled: pd.DataFrame | None
) -> pd.DataFrame:
    """All findings, sorted by reason and number."""
    records: dict[str, Any] = {} if settled is None else settled.set_index("image_id").to_dict("index")
    bad = dict(KNOWN_BAD)
    rows = []
    for image_id, findings in zip(ids, looked, strict=True):
        found = list(findings)
        if image_id in bad:
            found.append(Finding("known", 1, bad[image_id], []))
        record = records.get(image_id, {"contested_pixels": 0, "left_out": None})
        if record["contested_pixels"]:
            pixels = int(record["contested_pixels"])
            found.append(Finding("overlap", pixels, f"{pixels} pixels", []))
        if isinstance(record["left_out"], str) and record["left_out"]:
            names = record["left_out"].split("/")
            found.append(Finding("left out", len(names), ", ".join(names), []))
        rows += [{"image_id": image_id, **finding._asdict()} for finding in found]
    findings = pd.DataFrame(rows, columns=["image_id", *Finding._fields])
    order = findings.reason.map({reason: number for number, reason in enumerate(REASONS)})
    # the fewer nuclei, the more severe
    size = findings.number.where(findings.reason == "few", -findings.number)
    return findings.assign(order=order, size=size).sort_values(["order", "size", "image_id"]).drop(
        columns=["order", "size"]
    )  # fmt: skip
