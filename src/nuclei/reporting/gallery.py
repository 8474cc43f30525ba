"""Images of a page with outlines as SVG paths; for the report, which images and predictions."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from nuclei.arrays import LabelMap, Pixels
from nuclei.data.intensity import stretch, to_display
from nuclei.data.prepared_images import Images
from nuclei.io.probability_maps import Maps
from nuclei.postprocessing.otsu import otsu_watershed
from nuclei.postprocessing.parameters import Tuned
from nuclei.postprocessing.watershed import segment_maps
from nuclei.progress import show_progress
from nuclei.reporting.overlays import embed_image, find_outlines, nucleus_kinds, svg_path
from nuclei.reporting.score_records import ScoreRecord

log = logging.getLogger(__name__)

Key = TypeVar("Key")
Segmenter = Callable[[str], LabelMap]
"""Out-of-fold label map (H, W) of an experiment by image id."""

PICTURE_SIDE = 512
"""Longest side of an embedded image in pixels."""


def open_predictions(runs: Path, record: ScoreRecord, images: Images) -> Segmenter | None:
    """How an experiment segments a training image out of fold; None if its maps are not here.

    The classical baseline has no maps and is computed from the images.
    """
    if record.is_untuned:
        return lambda image_id: otsu_watershed(to_display(images.image(image_id)))
    path = runs / record.experiment / "oof.npz"
    if not path.is_file() or not record.fold:
        return None
    maps = Maps(path)
    tuned = {int(fold): Tuned.from_dict(group.parameters or {}) for fold, group in record.fold.items()}

    def segment(image_id: str) -> LabelMap:
        image = record.image[image_id]
        return segment_maps(maps[image_id], tuned[image.fold].of(image.modality))

    return segment


def choose_images(records: Sequence[ScoreRecord], count: int) -> list[str]:
    """Ids of the images to show, the most informative first.

    They are the `count` worst and best images of each experiment. A third as many are the worst of
    each modality, and those with the largest difference between an experiment and the best one.
    """
    rankings: list[list[str]] = []
    best = records[0].image_scores() if records else {}
    few = max(1, count // 3)
    for record in records:
        scores = record.image_scores()
        order = sorted(scores, key=lambda image_id: (scores[image_id], image_id))
        rankings += [order[:count], order[::-1][:count]]
        modality_of = {image_id: image.modality for image_id, image in record.image.items()}
        for modality in sorted(set(modality_of.values())):
            rankings.append([image_id for image_id in order if modality_of[image_id] == modality][:few])
        gaps = {image_id: abs(score - best[image_id]) for image_id, score in scores.items()}
        rankings.append(sorted(gaps, key=lambda image_id: (-gaps[image_id], image_id))[:few])
    by_rank = (ranking[rank] for rank in range(count) for ranking in rankings if rank < len(ranking))
    return list(dict.fromkeys(by_rank))


def draw_pictures(
    images: Images, chosen: Iterable[str], segmenters: Mapping[str, Segmenter], size: int
) -> dict[str, dict[str, Any]]:
    """Pictures by image id, as many of the chosen ones in their order as fit into `size` bytes.

    A picture has what `draw_picture` gives and `predicted`: by experiment the `paths`, and the
    kinds of the annotated (`truth`) and predicted nuclei (`kinds`) as `kind_letters`.
    """
    return fill_page(chosen, lambda image_id: _draw_predicted(images, image_id, segmenters), size)


def fill_page(
    chosen: Iterable[Key], draw: Callable[[Key], dict[str, Any]], size: int
) -> dict[Key, dict[str, Any]]:
    """Results of `draw` for as many keys, in order, as fit into `size` bytes; at least one."""
    pictures: dict[Key, dict[str, Any]] = {}
    for key in show_progress(list(chosen), "draw     pictures of the page", "images"):
        picture = draw(key)
        size -= len(json.dumps(picture))
        if size < 0 and pictures:
            log.info("the page is full after %d images", len(pictures))
            break
        pictures[key] = picture
    return pictures


def draw_picture(image: Pixels, label_map: LabelMap, side: int = PICTURE_SIDE) -> dict[str, Any]:
    """An image for a page: `src` (data URI), original `width` and `height`, `truth` (SVG paths).

    The embedded image is at most `side` pixels long. There is one path for each nucleus of
    `label_map`.
    """
    height, width = label_map.shape
    return {
        "src": embed_image(stretch(to_display(image), 0.1, 99.9), side),
        "width": width,
        "height": height,
        "truth": trace_outlines(label_map, side),
    }


def trace_outlines(label_map: LabelMap, side: int = PICTURE_SIDE) -> list[str]:
    """SVG paths of the nuclei, labels ascending, as fine as a picture of `side` pixels shows."""
    # coarser in large images, which the page shows smaller
    tolerance = max(0.6, max(label_map.shape) / side)
    return [svg_path(outlines) for outlines in find_outlines(label_map, tolerance)]


def kind_letters(kinds: Iterable[str]) -> str:
    """Kinds of nuclei as letters: the first of hit, missed, extra and split, and g for merged."""
    return "".join("g" if kind == "merged" else kind[0] for kind in kinds)


def _draw_predicted(images: Images, image_id: str, segmenters: Mapping[str, Segmenter]) -> dict[str, Any]:
    truth = images.label_map(image_id)
    predictions = {}
    for name, segment in segmenters.items():
        predicted = segment(image_id)
        annotated, made = map(kind_letters, nucleus_kinds(truth, predicted))
        predictions[name] = {"paths": trace_outlines(predicted), "truth": annotated, "kinds": made}
    return {**draw_picture(images.image(image_id), truth), "predicted": predictions}
