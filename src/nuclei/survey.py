"""A look at the data: one page with sizes, modalities, nuclei, doubtful annotations and contact sheets of a census."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from nuclei.annotations import REASONS, find_holes, find_unlabelled
from nuclei.artifacts import Images, LabelMap, Pixels
from nuclei.census import Census
from nuclei.competition import KNOWN_BAD, MODALITIES
from nuclei.gallery import draw_picture, fill_page, kind_letters, trace
from nuclei.intensity import to_display
from nuclei.overlays import COLOURS
from nuclei.pages import render
from nuclei.provenance import code_commit

THUMBNAIL, CLOSE_UP = 208, 384
"""Longest sides in pixels of the pictures on the contact sheets, and of those of findings."""

_OCTAVES = 2 ** np.arange(2, 7.51, 0.5)
"""Limits of the classes of diameters in pixels; those beyond are counted with the first and the last."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEAST_WINDOW = 96
"""Side in pixels that a close-up shows at least."""
_FINDINGS_SHARE = 0.6
"""Of the room for pictures, what findings may take."""


def survey_page(census: Census, images: Images, thumbnails: int, megabytes: float) -> str:
    """The page in HTML, with `thumbnails` images of each modality and fold, as far as `megabytes` go."""
    room = int(megabytes * 1e6)
    close_ups = fill_page(
        range(len(census.findings)),
        lambda number: draw_finding(images, census.findings.iloc[number]),
        int(room * _FINDINGS_SHARE),
    )
    sheets = choose_sheets(census.images, thumbnails)
    chosen = [image_id for sheet in sheets for image_id in sheet["images"]]
    room -= sum(len(picture["src"]) + sum(map(len, picture["truth"])) for picture in close_ups.values())
    thumbs = fill_page(_in_turns(sheets), lambda image_id: _draw_thumbnail(images, image_id), room) if chosen else {}
    for sheet in sheets:
        sheet["images"] = [image_id for image_id in sheet["images"] if image_id in thumbs]
    modalities = present_modalities(census.images)
    data = {
        "modalities": modalities,
        "ranges": {
            "nuclei": _ranges(census.labelled.dropna(subset="nuclei"), "nuclei", modalities),
            "area": _ranges(census.nuclei, "area", modalities),
            "diameter": _ranges(census.nuclei, "diameter", modalities),
        },
        "diameters": diameter_classes(census.nuclei, modalities),
        "touching": _touching_by_fold(census.nuclei, modalities),
        "findings": [
            {**_plain(row), "picture": close_ups.get(number)}
            for number, row in enumerate(census.findings.drop(columns="labels").to_dict("records"))
        ],
        "sheets": sheets,
        "thumbnails": thumbs,
        "nuclei": dict(zip(census.labelled.image_id, census.labelled.nuclei.tolist(), strict=True)),
    }
    present = set(census.images.image_id)
    return render(
        "eda.html",
        data=data,
        overview=overview(census, modalities),
        folds=fold_table(census.images, modalities),
        sizes=size_table(census.images),
        findings=data["findings"],
        reasons=[
            {"reason": reason, "words": words, **_tally(census.findings, reason)} for reason, words in REASONS.items()
        ],
        settled=census.settled,
        known=[{"image_id": image_id, "fault": fault, "here": image_id in present} for image_id, fault in KNOWN_BAD],
        modalities=modalities,
        images=census.images.subset.value_counts().to_dict(),
        colours=COLOURS,
        commit=code_commit(),
    )


def present_modalities(images: pd.DataFrame) -> list[str]:
    """The modalities of a census in their usual order, others after them."""
    found = set(images.modality)
    return [name for name in MODALITIES if name in found] + sorted(found - set(MODALITIES))


def overview(census: Census, modalities: list[str]) -> list[dict[str, Any]]:
    """A row a modality and one of all: images, nuclei, their sizes, and how many touch another or the image's edge."""
    rows = []
    for name in [*modalities, ""]:
        images = census.images[census.images.modality == name] if name else census.images
        nuclei = census.nuclei[census.nuclei.modality == name] if name else census.nuclei
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
                **touching_shares(nuclei),
                "cut": float(nuclei.cut.mean()) if len(nuclei) else None,
            }
        )
    return rows


def touching_shares(nuclei: pd.DataFrame) -> dict[str, float | None]:
    """Share of nuclei that touch another one, and of all their rims that lie against another one."""
    if not len(nuclei):
        return {"touching": None, "boundary": None}
    return {
        "touching": float((nuclei.touching_sides > 0).mean()),
        "boundary": float(nuclei.touching_sides.sum() / max(nuclei.sides.sum(), 1)),
    }


def fold_table(images: pd.DataFrame, modalities: list[str]) -> dict[str, Any]:
    """Images of each modality by fold (or the training set where there are no folds) and in the test set; then sums."""
    places = _places(images)
    names = list(dict.fromkeys(sorted(places, key=lambda place: (place == "test", place))))
    rows = [(name.replace("_", " "), (images.modality == name).groupby(places).sum()) for name in modalities]
    rows.append(("images", images.groupby(places).size()))
    rows.append(("pictures", images.groupby(places).group.nunique()))
    rows.append(("nuclei", images.groupby(places).nuclei.sum()))
    return {
        "names": names,
        "dealt": bool(images.fold.notna().any()),
        "rows": [
            # test images have no nuclei that are known
            {
                "name": name,
                "counts": [int(row[place]) if (name, place) != ("nuclei", "test") else None for place in names],
            }
            for name, row in rows
        ],
    }


def size_table(images: pd.DataFrame) -> list[dict[str, Any]]:
    """Sizes of images, the most frequent first, with the images of each subset and their modalities."""
    rows = []
    for (height, width), group in images.groupby(["height", "width"]):
        subsets = group.subset.value_counts()
        names = ", ".join(name.replace("_", " ") for name in present_modalities(group))
        row = {"height": int(height), "width": int(width), "modalities": names}
        rows.append(row | {subset: int(subsets.get(subset, 0)) for subset in ("train", "test")})
    return sorted(rows, key=lambda row: (-row["train"] - row["test"], row["height"], row["width"]))


def diameter_classes(nuclei: pd.DataFrame, modalities: list[str]) -> dict[str, Any]:
    """Half octaves of equivalent diameters: lower `limits`, and the `shares` of each modality's nuclei in them."""
    shares = {}
    for name in modalities:
        diameters = nuclei.diameter[nuclei.modality == name].to_numpy(float)
        counts, _ = np.histogram(np.clip(diameters, _OCTAVES[0], _OCTAVES[-1]), _OCTAVES)
        if counts.sum():
            shares[name] = [round(float(count), 4) for count in counts / counts.sum()]
    return {"limits": [round(float(limit), 1) for limit in _OCTAVES[:-1]], "shares": shares}


def _ranges(table: pd.DataFrame, column: str, modalities: list[str]) -> list[dict[str, Any]]:
    """Quantiles of a column by modality, of those that have any."""
    groups = [(name, table[column][table.modality == name].astype(float)) for name in modalities]
    return [
        {"name": name, "count": len(values), "quantiles": [round(float(q), 2) for q in values.quantile(_QUANTILES)]}
        for name, values in groups
        if len(values)
    ]


def _touching_by_fold(nuclei: pd.DataFrame, modalities: list[str]) -> list[dict[str, Any]]:
    """The shares of touching nuclei and rims of each modality, over all and by fold (none where there are no folds)."""
    rows = []
    for name in modalities:
        own = nuclei[nuclei.modality == name]
        if len(own):
            folds = [{"fold": int(fold), **touching_shares(part)} for fold, part in own.groupby("fold")]
            rows.append({"name": name, "nuclei": len(own), **touching_shares(own), "folds": folds})
    return rows


def _places(images: pd.DataFrame) -> pd.Series:
    """The fold of each image, or its subset where it has none."""
    return images.fold.map(lambda fold: f"fold {fold}", na_action="ignore").astype(object).fillna(images.subset)


def _tally(findings: pd.DataFrame, reason: str) -> dict[str, int]:
    own = findings[findings.reason == reason]
    return {"images": len(own), "number": int(own.number.sum())}


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
        for place, group in sorted(own.groupby(_places(own)), key=lambda item: (item[0] == "test", item[0])):
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
