"""Exploratory data analysis (EDA) as one page: sizes, modalities, nuclei, doubtful annotations."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from nuclei.arrays import LabelMap, Pixels
from nuclei.data.intensity import to_display
from nuclei.data.prepare import KNOWN_BAD
from nuclei.data.prepared_images import Images
from nuclei.provenance import code_commit
from nuclei.reporting.eda.annotation_checks import REASONS, find_holes, find_unlabelled
from nuclei.reporting.eda.sources import choose_images, source_table
from nuclei.reporting.eda.statistics import DataStatistics
from nuclei.reporting.eda.tables import (
    count_findings,
    diameter_classes,
    fold_table,
    overview,
    place_images,
    present_modalities,
    ranges,
    size_table,
    touching_by_fold,
)
from nuclei.reporting.gallery import draw_picture, fill_page, kind_letters, trace_outlines
from nuclei.reporting.overlays import KIND_COLOURS
from nuclei.reporting.rendering import render

THUMBNAIL, CLOSE_UP = 208, 384
"""Longest sides in pixels of the pictures on the contact sheets, and of those of findings."""

_SMALLEST_WINDOW = 96
"""Smallest side of a close-up in pixels of the image."""
_FINDINGS_FRACTION = 0.6
"""Fraction of the bytes for pictures that findings may take."""


def data_page(
    statistics: DataStatistics,
    images: Images,
    thumbnails: int,
    megabytes: float,
    held_out: Mapping[str, int] | None = None,
) -> str:
    """The HTML page, with `thumbnails` images a modality and fold, at most `megabytes` of images.

    `held_out` is the fold that holds out the source of each image, by image id.
    """
    size = int(megabytes * 1e6)
    findings, used = _draw_findings(statistics, images, int(size * _FINDINGS_FRACTION))
    sources = source_table(statistics.images, held_out or {})
    sheets, thumbs = _draw_sheets(choose_sheets(statistics.images, thumbnails), sources, images, size - used)
    modalities = present_modalities(statistics.images)
    labelled = statistics.labelled
    data = {
        "modalities": modalities,
        "ranges": {
            "nuclei": ranges(labelled.dropna(subset="nuclei"), "nuclei", modalities),
            "area": ranges(statistics.nuclei, "area", modalities),
            "diameter": ranges(statistics.nuclei, "diameter", modalities),
        },
        "diameters": diameter_classes(statistics.nuclei, modalities),
        "touching": touching_by_fold(statistics.nuclei, modalities),
        "findings": findings,
        "sheets": sheets,
        "sources": sources,
        "thumbnails": thumbs,
        "nuclei": dict(zip(labelled.image_id, labelled.nuclei.tolist(), strict=True)),
        "colours": KIND_COLOURS,
    }
    tables = _tables(statistics, modalities)
    return render("eda.html", "eda.js", data, findings=findings, sources=sources, **tables)


def _tables(statistics: DataStatistics, modalities: list[str]) -> dict[str, Any]:
    """Text of the page without JavaScript."""
    present = set(statistics.images.image_id)
    reasons = [
        {"reason": reason, "words": words, **count_findings(statistics.findings, reason)}
        for reason, words in REASONS.items()
    ]
    known = [
        {"image_id": image_id, "fault": fault, "here": image_id in present} for image_id, fault in KNOWN_BAD
    ]
    return {
        "overview": overview(statistics, modalities),
        "folds": fold_table(statistics.images, modalities),
        "sizes": size_table(statistics.images),
        "reasons": reasons,
        "settled": statistics.settled,
        "known": known,
        "modalities": modalities,
        "images": statistics.images.subset.value_counts().to_dict(),
        "commit": code_commit(),
    }


def _draw_findings(statistics: DataStatistics, images: Images, size: int) -> tuple[list[dict[str, Any]], int]:
    """All findings, with close-ups of as many as fit into `size` bytes, and the bytes used."""
    table = statistics.findings
    pictures = fill_page(range(len(table)), lambda number: draw_finding(images, table.iloc[number]), size)
    rows = table.drop(columns="labels").to_dict("records")
    findings = [{**_plain(row), "picture": pictures.get(number)} for number, row in enumerate(rows)]
    used = sum(len(picture["src"]) + sum(map(len, picture["truth"])) for picture in pictures.values())
    return findings, used


def _draw_sheets(
    sheets: list[dict[str, Any]], sources: list[dict[str, Any]], images: Images, size: int
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Contact sheets, and thumbnails by image id of as many `images` as fit into `size` bytes.

    The rows lose those that do not fit.
    """
    chosen = list(dict.fromkeys(_in_turns([*sources, *sheets])))
    thumbs = fill_page(chosen, lambda image_id: _draw_thumbnail(images, image_id), size) if chosen else {}
    for row in [*sources, *sheets]:
        row["images"] = [image_id for image_id in row["images"] if image_id in thumbs]
    return sheets, thumbs


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row for JSON: None for missing values, Python numbers for NumPy's."""
    known = {key: None if pd.isna(value) else value for key, value in row.items()}
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in known.items()}


def choose_sheets(images: pd.DataFrame, count: int) -> list[dict[str, Any]]:
    """Contact sheets, a modality and fold each: up to `count` image ids of `total`.

    They are spread evenly from few nuclei to many. Of tiles of one picture there is one, unless too
    few are left.
    """
    sheets = []
    for name in present_modalities(images):
        own = images[images.modality == name]
        for place, group in sorted(
            own.groupby(place_images(own)), key=lambda item: (item[0] == "test", item[0])
        ):
            picked = choose_images(group, count)
            sheets.append(
                {
                    "modality": name,
                    "place": place,
                    "total": len(group),
                    "images": picked,
                }
            )
    return sheets


def _in_turns(sheets: list[dict[str, Any]]) -> Iterable[str]:
    """The first image of each sheet, then the second of each, so that a full page has some."""
    longest = max((len(sheet["images"]) for sheet in sheets), default=0)
    return [sheet["images"][turn] for turn in range(longest) for sheet in sheets if turn < len(sheet["images"])]


def _draw_thumbnail(images: Images, image_id: str) -> dict[str, Any]:
    image = images.image(image_id)
    labelled = image_id in set(images.ids("train"))
    label_map = images.label_map(image_id) if labelled else np.zeros(image.shape[:2], np.int32)
    return draw_picture(image, label_map, THUMBNAIL)


def draw_finding(images: Images, finding: pd.Series) -> dict[str, Any]:
    """A close-up of a finding: as `gallery.draw_picture`, with `kinds` and `found`.

    `kinds` has a letter for each nucleus, m for those of the finding. `found` are the paths of
    unlabelled objects or holes.
    """
    image, label_map = images.image(finding.image_id), images.label_map(finding.image_id)
    objects = np.zeros_like(label_map)
    if finding.reason == "unlabelled":
        objects = find_unlabelled(to_display(image), label_map)
    elif finding.reason == "hole":
        objects = find_holes(label_map, finding.labels)
    # few nuclei are shown with all of the image around them
    shown = np.isin(label_map, finding.labels) if finding.labels and finding.reason != "few" else objects > 0
    window = close_up(shown)
    image, label_map, objects = image[window], label_map[window], objects[window]
    picture = draw_picture(image, label_map, CLOSE_UP)
    labels = np.unique(label_map[label_map > 0]).tolist()
    kinds = kind_letters("missed" if label in set(finding.labels) else "hit" for label in labels)
    return {**picture, "kinds": kinds, "found": trace_outlines(objects, CLOSE_UP)}


def close_up(mask: LabelMap | Pixels) -> tuple[slice, slice]:
    """Square window of twice the extent of a mask (H, W); the whole image for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(None), slice(None)
    side = max(2 * (rows[-1] - rows[0] + 1), 2 * (columns[-1] - columns[0] + 1), _SMALLEST_WINDOW)
    return _around(rows, side, mask.shape[0]), _around(columns, side, mask.shape[1])


def _around(places: Any, side: int, length: int) -> slice:
    start = int(np.clip((places[0] + places[-1] - side) // 2, 0, max(length - side, 0)))
    return slice(start, min(start + int(side), length))
