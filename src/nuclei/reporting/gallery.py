"""Images of a page with outlines as SVG paths; in the report, which to show and what each experiment made of them."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from nuclei.arrays import LabelMap, Pixels
from nuclei.data.intensity import stretch, to_display
from nuclei.data.prepared_images import Images
from nuclei.io.probability_maps import Maps
from nuclei.postprocessing.otsu import otsu_watershed
from nuclei.postprocessing.parameters import Tuned
from nuclei.postprocessing.watershed import segment_maps
from nuclei.reporting.overlays import embed_image, find_outlines, nucleus_kinds, svg_path
from nuclei.reporting.score_records import Summary, image_scores

log = logging.getLogger(__name__)

Key = TypeVar("Key")
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

    A picture has what `draw_picture` gives and `predicted`: by experiment `paths`, and the kinds of the annotated
    (`truth`) and predicted nuclei (`kinds`), one letter each: see `kind_letters`.
    """
    return fill_page(chosen, lambda image_id: _draw_predicted(images, image_id, segments), size)


def fill_page(chosen: Iterable[Key], draw: Callable[[Key], dict[str, Any]], size: int) -> dict[Key, dict[str, Any]]:
    """What `draw` makes of the chosen ones in their order, as many as `size` bytes of a page hold, at least one."""
    pictures: dict[Key, dict[str, Any]] = {}
    for key in tqdm(list(chosen), desc="pictures", unit="image", mininterval=1):
        picture = draw(key)
        size -= len(json.dumps(picture))
        if size < 0 and pictures:
            log.info("the page is full after %d images", len(pictures))
            break
        pictures[key] = picture
    return pictures


def draw_picture(image: Pixels, label_map: LabelMap, side: int = SIDE) -> dict[str, Any]:
    """An image for a page: `src` (data URI, at most `side` pixels long), `width` and `height` of the image itself, and
    `truth`, an SVG path for each nucleus."""
    height, width = label_map.shape
    return {
        "src": embed_image(stretch(to_display(image), 0.1, 99.9), side),
        "width": width,
        "height": height,
        "truth": trace(label_map, side),
    }


def trace(label_map: LabelMap, side: int = SIDE) -> list[str]:
    """SVG paths of the nuclei in ascending order of labels, as fine as a picture of `side` pixels shows them."""
    # coarser in large images, which the page shows smaller
    tolerance = max(0.6, max(label_map.shape) / side)
    return [svg_path(outlines) for outlines in find_outlines(label_map, tolerance)]


def kind_letters(kinds: Iterable[str]) -> str:
    """The kinds of `overlays`, a letter each: the first of hit, missed, extra, split, and g for merged."""
    return "".join("g" if kind == "merged" else kind[0] for kind in kinds)


def _draw_predicted(images: Images, image_id: str, segments: Mapping[str, Segment]) -> dict[str, Any]:
    truth = images.label_map(image_id)
    picture = draw_picture(images.image(image_id), truth)
    picture["predicted"] = {}
    for name, segment in segments.items():
        predicted = segment(image_id)
        annotated, made = map(kind_letters, nucleus_kinds(truth, predicted))
        picture["predicted"][name] = {"paths": trace(predicted), "truth": annotated, "kinds": made}
    return picture
