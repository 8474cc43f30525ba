"""Exploratory data analysis (EDA) as one page: sizes, modalities, nuclei, doubtful annotations, contact sheets."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from nuclei.arrays import LabelMap, Pixels
from nuclei.data.intensity import to_display
from nuclei.data.prepare import KNOWN_BAD
from nuclei.data.prepared_images import Images
from nuclei.provenance import code_commit
from nuclei.reporting.eda.annotation_checks import REASONS, find_holes, find_unlabelled
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
from nuclei.reporting.gallery import draw_picture, fill_page, kind_letters, trace
from nuclei.reporting.overlays import COLOURS
from nuclei.reporting.rendering import render

THUMBNAIL, CLOSE_UP = 208, 384
"""Longest sides in pixels of the pictures on the contact sheets, and of those of findings."""

_LEAST_WINDOW = 96
"""Side in pixels that a close-up shows at least."""
_FINDINGS_SHARE = 0.6
"""Of the room for pictures, what findings may take."""


def data_page(statistics: DataStatistics, images: Images, thumbnails: int, megabytes: float) -> str:
    """The page in HTML, with `thumbnails` images of each modality and fold, as far as `megabytes` go."""
    room = int(megabytes * 1e6)
    close_ups = fill_page(
        range(len(statistics.findings)),
        lambda number: draw_finding(images, statistics.findings.iloc[number]),
        int(room * _FINDINGS_SHARE),
    )
    sheets = choose_sheets(statistics.images, thumbnails)
    chosen = [image_id for sheet in sheets for image_id in sheet["images"]]
    room -= sum(len(picture["src"]) + sum(map(len, picture["truth"])) for picture in close_ups.values())
    thumbs = fill_page(_in_turns(sheets), lambda image_id: _draw_thumbnail(images, image_id), room) if chosen else {}
    for sheet in sheets:
        sheet["images"] = [image_id for image_id in sheet["images"] if image_id in thumbs]
    modalities = present_modalities(statistics.images)
    data = {
        "modalities": modalities,
        "ranges": {
            "nuclei": ranges(statistics.labelled.dropna(subset="nuclei"), "nuclei", modalities),
            "area": ranges(statistics.nuclei, "area", modalities),
            "diameter": ranges(statistics.nuclei, "diameter", modalities),
        },
        "diameters": diameter_classes(statistics.nuclei, modalities),
        "touching": touching_by_fold(statistics.nuclei, modalities),
        "findings": [
            {**_plain(row), "picture": close_ups.get(number)}
            for number, row in enumerate(statistics.findings.drop(columns="labels").to_dict("records"))
        ],
        "sheets": sheets,
        "thumbnails": thumbs,
        "nuclei": dict(zip(statistics.labelled.image_id, statistics.labelled.nuclei.tolist(), strict=True)),
        "colours": COLOURS,
    }
    present = set(statistics.images.image_id)
    return render(
        "eda.html",
        "eda.js",
        data,
        overview=overview(statistics, modalities),
        folds=fold_table(statistics.images, modalities),
        sizes=size_table(statistics.images),
        findings=data["findings"],
        reasons=[
            {"reason": reason, "words": words, **count_findings(statistics.findings, reason)}
            for reason, words in REASONS.items()
        ],
        settled=statistics.settled,
        known=[{"image_id": image_id, "fault": fault, "here": image_id in present} for image_id, fault in KNOWN_BAD],
        modalities=modalities,
        images=statistics.images.subset.value_counts().to_dict(),
        commit=code_commit(),
    )


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row without pandas' and NumPy's own kinds of nothing and of numbers, as JSON takes it."""
    known = {key: None if pd.isna(value) else value for key, value in row.items()}
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in known.items()}


def choose_sheets(images: pd.DataFrame, count: int) -> list[dict[str, Any]]:
    """Contact sheets, one a modality and fold: `modality`, `place`, `total` images, and ids of up to `count` of them.

    They are spread evenly from few nuclei to many; of tiles of one picture there is one only, while others are left.
    """
    sheets = []
    for name in present_modalities(images):
        own = images[images.modality == name]
        for place, group in sorted(own.groupby(place_images(own)), key=lambda item: (item[0] == "test", item[0])):
            turn = group.groupby("group").cumcount()
            ranked = group.assign(turn=turn).sort_values(["turn", "image_id"])
            pool = ranked.head(max(count, int((turn == 0).sum()))).sort_values(["nuclei", "image_id"])
            picked = pool.iloc[np.unique(np.linspace(0, len(pool) - 1, min(count, len(pool))).round().astype(int))]
            sheets.append({"modality": name, "place": place, "total": len(group), "images": list(picked.image_id)})
    return sheets


def _in_turns(sheets: list[dict[str, Any]]) -> Iterable[str]:
    """The images of all sheets, the first of each before the second of any: a page that gets full lacks few of each."""
    longest = max(len(sheet["images"]) for sheet in sheets)
    return [sheet["images"][turn] for turn in range(longest) for sheet in sheets if turn < len(sheet["images"])]


def _draw_thumbnail(images: Images, image_id: str) -> dict[str, Any]:
    image = images.image(image_id)
    labelled = image_id in set(images.ids("train"))
    label_map = images.label_map(image_id) if labelled else np.zeros(image.shape[:2], np.int32)
    return draw_picture(image, label_map, THUMBNAIL)


def draw_finding(images: Images, finding: pd.Series) -> dict[str, Any]:
    """A close-up of a finding: as `gallery.draw_picture`, with `kinds`, a letter for each nucleus (m for those that are
    meant), and `found`, the paths of what is not annotated: objects that no nucleus covers, or holes."""
    image, label_map = images.image(finding.image_id), images.label_map(finding.image_id)
    objects = np.zeros_like(label_map)
    if finding.reason == "unlabelled":
        objects = find_unlabelled(to_display(image), label_map)
    elif finding.reason == "hole":
        objects = find_holes(label_map, finding.labels)
    # few nuclei are seen among all that is not annotated
    meant = np.isin(label_map, finding.labels) if finding.labels and finding.reason != "few" else objects > 0
    window = close_up(meant)
    image, label_map, objects = image[window], label_map[window], objects[window]
    picture = draw_picture(image, label_map, CLOSE_UP)
    labels = np.unique(label_map[label_map > 0]).tolist()
    kinds = kind_letters("missed" if label in set(finding.labels) else "hit" for label in labels)
    return {**picture, "kinds": kinds, "found": trace(objects, CLOSE_UP)}


def close_up(mask: LabelMap | Pixels) -> tuple[slice, slice]:
    """The square around what a mask (H, W) holds, with as much again on each side; all of it where it holds nothing."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(None), slice(None)
    side = max(2 * (rows[-1] - rows[0] + 1), 2 * (columns[-1] - columns[0] + 1), _LEAST_WINDOW)
    return _around(rows, side, mask.shape[0]), _around(columns, side, mask.shape[1])


def _around(places: Any, side: int, length: int) -> slice:
    start = int(np.clip((places[0] + places[-1] - side) // 2, 0, max(length - side, 0)))
    return slice(start, min(start + int(side), length))
