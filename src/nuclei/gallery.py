"""Images of the report with what each experiment made of them: which to show, and their outlines as SVG paths."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nuclei.artifacts import Images, LabelMap, Maps
from nuclei.classical import otsu_watershed
from nuclei.intensity import stretch, to_display
from nuclei.overlays import embed_image, find_outlines, nucleus_kinds, svg_path
from nuclei.postprocessing import Tuned, segment_maps
from nuclei.standings import Summary, image_scores

log = logging.getLogger(__name__)

Segment = Callable[[str], LabelMap]
"""The label map that an experiment gives an image of this id, made by networks that never saw it."""

SIDE = 512
"""Longest side in pixels of an embedded image."""


def open_predictions(runs: Path, summary: Summary, images: Images) -> Segment | None:
    """How an experiment segments a training image out of fold, None where this machine has no maps of it.

    The classical baseline has no maps and is computed from the images.
    """
    name, folds, records = summary["experiment"], summary["fold"], summary["image"]
    if summary.get("parameters", ...) is None and records:
        return lambda image_id: otsu_watershed(to_display(images.image(image_id)))
    path = runs / name / "oof.npz"
    if not path.is_file() or not folds:
        return None
    maps = Maps(path)
    tuned = {int(fold): Tuned.from_dict(part["parameters"]) for fold, part in folds.items()}

    def segment(image_id: str) -> LabelMap:
        record = records[image_id]
        return segment_maps(maps[image_id], tuned[record["fold"]].of(record["modality"]))

    return segment


def choose_images(summaries: Sequence[Summary], count: int) -> list[str]:
    """Ids of the images worth a look, those that matter most first.

    They are the `count` worst and best of each experiment, a third as many of the worst of each modality, and of those
    on which an experiment is furthest from the best one.
    """
    ranks: list[list[str]] = []
    leader = image_scores(summaries[0]) if summaries else {}
    for summary in summaries:
        scores = image_scores(summary)
        order = sorted(scores, key=lambda image_id: (scores[image_id], image_id))
        ranks += [order[:count], order[::-1][:count]]
        few = max(1, count // 3)
        for modality in sorted({record["modality"] for record in summary["image"].values()}):
            ranks.append([image_id for image_id in order if summary["image"][image_id]["modality"] == modality][:few])
        apart = sorted(scores, key=lambda image_id: (-abs(scores[image_id] - leader[image_id]), image_id))
        ranks.append(apart[:few])
    turns = (rank[turn] for turn in range(count) for rank in ranks if turn < len(rank))
    return list(dict.fromkeys(turns))


def draw_pictures(
    images: Images, chosen: Iterable[str], segments: Mapping[str, Segment], size: int
) -> dict[str, dict[str, Any]]:
    """Pictures by image id, as many of the chosen ones in their order as `size` bytes of the page hold.

    A picture has `src` (data URI), `width` and `height` (pixels of the image), `truth` (a path for each nucleus) and
    `predicted`: by experiment `paths`, and the kinds of the annotated (`truth`) and predicted nuclei (`kinds`), one
    letter each: the first of hit, missed, extra, split, and g for merged.
    """
    pictures: dict[str, dict[str, Any]] = {}
    for image_id in tqdm(list(chosen), desc="pictures", unit="image", mininterval=1):
        picture = _draw_picture(images, image_id, segments)
        size -= len(json.dumps(picture))
        if size < 0 and pictures:
            log.info("the page is full after %d images", len(pictures))
            break
        pictures[image_id] = picture
    return pictures


def _draw_picture(images: Images, image_id: str, segments: Mapping[str, Segment]) -> dict[str, Any]:
    image, truth = images.image(image_id), images.label_map(image_id)
    height, width = truth.shape
    picture: dict[str, Any] = {
        "src": embed_image(stretch(to_display(image), 0.1, 99.9), SIDE),
        "width": width,
        "height": height,
        "truth": _paths(truth),
        "predicted": {},
    }
    for name, segment in segments.items():
        predicted = segment(image_id)
        annotated, made = nucleus_kinds(truth, predicted)
        picture["predicted"][name] = {"paths": _paths(predicted), "truth": _letters(annotated), "kinds": _letters(made)}
    return picture


def _paths(label_map: LabelMap) -> list[str]:
    # coarser in large images, which the page shows smaller
    tolerance = max(0.6, max(label_map.shape) / SIDE)
    return [svg_path(outlines) for outlines in find_outlines(label_map, tolerance)]


def _letters(kinds: Iterable[str]) -> str:
    return "".join("g" if kind == "merged" else kind[0] for kind in kinds)
