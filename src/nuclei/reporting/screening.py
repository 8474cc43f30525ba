"""An idea against a reference under one small budget: paired difference and verdict.

The error of the difference is over the sources of the held-out images and does not contain the
variation between seeds, which SEED_SPREAD gives.
"""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ConfigDict

from nuclei.arrays import LabelMap
from nuclei.data.prepared_images import Images
from nuclei.errors import UserError
from nuclei.evaluation.bootstrap import paired_difference, resample_means
from nuclei.io.names import Name
from nuclei.io.records import Record, read_record
from nuclei.postprocessing.parameters import Parameters
from nuclei.postprocessing.watershed import segment_maps
from nuclei.provenance import code_commit
from nuclei.reporting.gallery import Segmenter, draw_pictures
from nuclei.reporting.overlays import KIND_COLOURS
from nuclei.reporting.rendering import render

if TYPE_CHECKING:
    import torch

SEED_SPREAD = 0.014
"""Standard deviation of the plain UNet's score over seeds, from comparisons/learning_curve.csv."""
LISTED = 8
"""Images that are named and drawn."""
PAGE_BYTES = 6_000_000
REMEDY = "delete the file and run `make screen` again"


class ScreenedRun(Record):
    """The part of `measured.json` that a screening needs, see `comparison.measure_checkpoint`."""

    model_config = ConfigDict(extra="ignore")

    experiment: Name
    steps: int
    batch: str
    score: float
    minutes: float
    image_score: dict[str, float]
    image_half: dict[str, int]
    """Half of the held-out images, 0 or 1, by id."""
    tuned: list[dict[str, Any]]
    """Post-processing parameters of each half."""
    checkpoint: str


class ImageDifference(Record):
    """Scores of one image by both networks."""

    image_id: str
    modality: str
    own: float
    reference: float

    @property
    def difference(self) -> float:
        return self.own - self.reference


class Screening(Record):
    """An idea (`own`) against a reference on the same images."""

    own: ScreenedRun
    reference: ScreenedRun
    difference: float
    error: float
    """Standard deviation of the mean difference over resampled sources."""
    low: float
    high: float
    """95% interval of the difference over resampled sources."""
    sources: int
    sources_better: int
    images: list[ImageDifference]
    """The largest differences first."""

    @property
    def shown(self) -> list[ImageDifference]:
        """The images that are named and drawn."""
        return [one for one in self.images[:LISTED] if one.difference]

    @property
    def verdict(self) -> str:
        """The result in words."""
        own, reference = self.own.experiment, self.reference.experiment
        if self.low <= 0 <= self.high:
            return (
                f"no difference that these images can tell: it lies between {self.low:+.3f} and "
                f"{self.high:+.3f}. More steps (STEPS=500) or another fold (HELD_OUT=1) may tell "
                "more."
            )
        word = "better" if self.difference > 0 else "worse"
        if abs(self.difference) < 2 * np.sqrt(2) * SEED_SPREAD:
            return (
                f"{own} is {word} than {reference} on these images, but by no more than another "
                "seed can make: two trainings of one config differ by "
                f"{np.sqrt(2) * SEED_SPREAD:.2f} or so. Try HELD_OUT=1 as well."
            )
        after = ": worth a whole training" if self.difference > 0 else ""
        return f"{own} is {word} than {reference} under this budget, by more than seeds differ{after}."


def read_screened(path: Path) -> ScreenedRun:
    """The `measured.json` of a run.

    Raises:
        UserError: the file is missing, or of an earlier version.
    """
    return read_record(path, ScreenedRun, REMEDY)


def compare_runs(own: ScreenedRun, reference: ScreenedRun, images: Images) -> Screening:
    """The paired difference of two runs, image by image.

    Raises:
        UserError: they were scored on different images; images without a source.
    """
    ids = list(own.image_score)
    if set(ids) != set(reference.image_score):
        raise UserError(
            f"{own.experiment} was scored on {len(ids)} images and {reference.experiment} on "
            f"{len(reference.image_score)} others; {REMEDY}"
        )
    sources = {image_id: images.source(image_id) for image_id in ids}
    difference, low, high = paired_difference(own.image_score, reference.image_score, sources)
    both = [
        ImageDifference(
            image_id=image_id,
            modality=images.modality(image_id),
            own=own.image_score[image_id],
            reference=reference.image_score[image_id],
        )
        for image_id in ids
    ]
    means = resample_means(np.array([one.difference for one in both]), list(sources.values()))
    by_source: dict[str, list[float]] = {}
    for one in both:
        by_source.setdefault(sources[one.image_id], []).append(one.difference)
    return Screening(
        own=own,
        reference=reference,
        difference=difference,
        error=float(means.std()),
        low=low,
        high=high,
        sources=len(by_source),
        sources_better=sum(float(np.mean(values)) > 0 for values in by_source.values()),
        images=sorted(both, key=lambda one: (-round(abs(one.difference), 6), one.image_id)),
    )


def format_screening(screening: Screening) -> str:
    """The result as lines of text: scores, difference, verdict and the images that differ most."""
    own, reference = screening.own, screening.reference
    width = max(len(own.experiment), len(reference.experiment), len("difference")) + 2
    lines = [
        f"{own.steps} steps of {own.batch}, {len(own.image_score)} held-out images of {screening.sources} sources"
    ]
    for run in (own, reference):
        lines.append(f"{run.experiment:<{width}} {run.score:.4f}  trained in {run.minutes:.1f} min")
    error = f"standard error {screening.error:.4f} over sources"
    lines += [
        f"{'difference':<{width}}{screening.difference:+.4f}  {error}",
        f"{'':<{width + 9}}95% interval {screening.low:+.3f} to {screening.high:+.3f}",
        f"{'':<{width + 9}}better on {screening.sources_better} of {screening.sources} sources",
        "",
        *textwrap.wrap(f"verdict: {screening.verdict}", 80),
        "",
        f"The images that differ most, {reference.experiment} -> {own.experiment}:",
    ]
    for one in screening.shown:
        scores = f"{one.reference:.3f} -> {one.own:.3f}"
        lines.append(f"  {one.difference:+.3f}  {scores}  {one.image_id[:12]}  {one.modality}")
    return "\n".join(lines)


def screening_page(screening: Screening, images: Images, segmenters: Mapping[str, Segmenter]) -> str:
    """HTML page of the result and the images that differ most, side by side with their errors."""
    pictures = draw_pictures(images, [one.image_id for one in screening.shown], segmenters, PAGE_BYTES)
    data = {
        "own": screening.own.experiment,
        "reference": screening.reference.experiment,
        "images": [one.model_dump() for one in screening.shown if one.image_id in pictures],
        "pictures": pictures,
        "colours": KIND_COLOURS,
    }
    return render("screen.html", "screen.js", data, screening=screening, commit=code_commit())


def open_segmenter(run: ScreenedRun, images: Images, device: "torch.device") -> Segmenter:
    """How a trained network segments a held-out image, with the parameters of its score."""
    from nuclei.inference.predictor import load_predictor
    from nuclei.models.checkpoint_file import load_checkpoint

    predictor = load_predictor(load_checkpoint(Path(run.checkpoint)), run.checkpoint, device)
    tuned = [Parameters.from_dict(values) for values in run.tuned]

    def segment(image_id: str) -> LabelMap:
        return segment_maps(predictor(images.image(image_id)), tuned[run.image_half[image_id]])

    return segment
