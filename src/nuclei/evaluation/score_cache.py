"""Scores of images under candidates, such as post-processing parameters, each computed once."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from nuclei.arrays import BoolArray, Float64Array, Int64Array, LabelMap, UInt8Array
from nuclei.data.prepared_images import Images
from nuclei.evaluation.metric import THRESHOLDS, average_precision
from nuclei.evaluation.scores import ImageScores, score_image
from nuclei.io.probability_maps import Maps, read_maps
from nuclei.postprocessing.parameters import FILTER_PARAMETERS, Parameters
from nuclei.postprocessing.watershed import (
    Instances,
    WatershedInput,
    draw_instances,
    filter_instances,
    find_markers,
    flood_markers,
    measure_certainty,
    measure_instances,
    segment_maps,
    threshold_maps,
    trim_instances,
)

Rows = Int64Array
"""Positions of images in the sorted list of ids."""
Candidate = TypeVar("Candidate", bound=Hashable)
CACHED_IMAGES = 160
"""Images whose seed maps a `MapScorer` caches; it caches the maps of four times as many."""


class Scores(Generic[Candidate]):
    """Table of scores, (images, thresholds) for each candidate, filled on demand.

    `run` maps jobs (image id, candidates) to a list of (thresholds,) scores each; `advance` is
    called with the number of scores that were computed. `sources` names the source of each image
    (every image its own where absent), which is the unit of the error of a mean.
    """

    def __init__(
        self,
        image_ids: list[str],
        run: Callable[[Iterable[Any]], Iterator[Any]],
        advance: Callable[[int], Any] = lambda _: None,
        sources: Sequence[str] | None = None,
    ) -> None:
        self.image_ids = image_ids
        self.sources = np.unique(image_ids if sources is None else list(sources), return_inverse=True)[1]
        self._run = run
        self._advance = advance
        self._table: dict[Candidate, Float64Array] = {}

    def fill(self, candidates: Iterable[Candidate], rows: Rows) -> None:
        """Computes the missing scores of the candidates on the images; reads each image once."""
        candidates = list(dict.fromkeys(candidates))
        for candidate in candidates:
            empty = np.full((len(self.image_ids), len(THRESHOLDS)), np.nan)
            self._table.setdefault(candidate, empty)
        missing = {}
        for row in rows.tolist():
            absent = [candidate for candidate in candidates if np.isnan(self._table[candidate][row, 0])]
            if absent:
                missing[row] = absent
        results = self._run([(self.image_ids[row], absent) for row, absent in missing.items()])
        for (row, absent), scores in zip(missing.items(), results, strict=True):
            for candidate, score in zip(absent, scores, strict=True):
                self._table[candidate][row] = score
            self._advance(len(absent))

    def by_image(self, candidate: Candidate, rows: Rows) -> Float64Array:
        """Score of each image (R,), all of them filled before."""
        return np.asarray(self._table[candidate][rows].mean(axis=1))

    def mean(self, candidate: Candidate, rows: Rows) -> float:
        """Mean score of the images, all of them filled before."""
        return float(self.by_image(candidate, rows).mean())

    def gains(self, candidate: Candidate, base: Candidate, rows: Rows, caution: float) -> bool:
        """Whether the mean gain of a candidate over the images is above `caution` standard errors.

        The error is that of a mean over sources, since images of one source gain together.
        """
        differences = self.by_image(candidate, rows) - self.by_image(base, rows)
        error = clustered_error(differences, self.sources[rows])
        return bool(differences.mean() > max(caution * error, 1e-9))


def clustered_error(values: Float64Array, clusters: Int64Array) -> float:
    """Standard error of the mean of values (N,) that are dependent within clusters (N,).

    It is 0 for one value and infinite for several values of one cluster, which tell nothing of
    another. Source: Liang and Zeger (1986), for a mean, with the correction for few clusters.
    """
    if len(values) == 1:
        return 0.0
    totals = np.bincount(clusters, values - values.mean())[np.unique(clusters)]
    if len(totals) == 1:
        return float("inf")
    count = len(totals)
    return float(np.sqrt(count / (count - 1) * (totals**2).sum()) / len(values))


class MapScorer:
    """Scores of an image under candidate parameters; one is opened in each worker.

    Most candidates give the same instances as another one. So equal markers (by their digest, on
    the same mask) are flooded once, and equal sets of kept instances are drawn and scored once.
    """

    def __init__(self, maps: Path, processed: Path) -> None:
        self.maps, self.images = Maps(maps), Images(processed)
        # Large arrays are cached for as many images as the coarse search returns to.
        self._read = lru_cache(maxsize=4 * CACHED_IMAGES)(self._read_image)
        self._threshold = lru_cache(maxsize=CACHED_IMAGES)(self._threshold_maps)
        self._find = lru_cache(maxsize=1)(self._find_markers)
        self._certainty = cache(lambda image_id: measure_certainty(self._read(image_id)[0]))
        self._flooded: dict[tuple[Any, ...], Instances] = {}
        self._digests: dict[tuple[Any, ...], bytes] = {}
        self._measures: dict[tuple[Any, ...], Float64Array] = {}
        self._scores: dict[tuple[Any, ...], Float64Array] = {}

    def __call__(self, job: tuple[str, list[Parameters] | Parameters]) -> list[Float64Array] | ImageScores:
        """Scores (10,) of the image with each of several candidates, or `ImageScores` with one."""
        image_id, candidates = job
        if isinstance(candidates, Parameters):
            maps, truth = self._read(image_id)
            return score_image(truth, segment_maps(maps, candidates))
        certainty = self._certainty(image_id)
        return [self._score(image_id, parameters.at(certainty)) for parameters in candidates]

    def _score(self, image_id: str, parameters: Parameters) -> Float64Array:
        """Score (10,) under parameters whose thresholds are probabilities."""
        unaffected = (*FILTER_PARAMETERS, "instance_threshold")
        for_markers = replace(parameters, **{name: getattr(Parameters, name) for name in unaffected})
        key = image_id, for_markers
        if key not in self._digests:
            markers = self._find(image_id, for_markers)
            self._digests[key] = blake2b(markers.tobytes(), digest_size=16).digest()
        flooded = (
            image_id,
            for_markers.foreground_threshold,
            for_markers.border_weight,
            self._digests[key],
        )
        trimmed = *flooded, parameters.instance_threshold
        if trimmed not in self._measures:
            instances = self._flood(flooded, for_markers, parameters.instance_threshold)
            self._measures[trimmed] = measure_instances(instances)
        keep = filter_instances(self._measures[trimmed], parameters)
        kept = *trimmed, keep.tobytes()
        if kept not in self._scores:
            instances = self._flood(flooded, for_markers, parameters.instance_threshold)
            self._scores[kept] = self._score_instances(image_id, instances, keep)
        return self._scores[kept]

    def _score_instances(self, image_id: str, instances: Instances, keep: BoolArray) -> Float64Array:
        return average_precision(self._read(image_id)[1], draw_instances(instances, keep))

    def _flood(self, key: tuple[Any, ...], parameters: Parameters, fraction: float) -> Instances:
        """Trimmed instances; those before trimming are cached under `key`, the latest ones."""
        instances = self._flooded.pop(key, None)
        if instances is None:
            image_id = key[0]
            given = self._threshold(image_id, parameters.foreground_threshold, parameters.border_weight)
            markers = self._find(image_id, parameters)
            instances = flood_markers(self._read(image_id)[0], given, markers)
        self._flooded[key] = instances
        if len(self._flooded) > 2 * CACHED_IMAGES:
            del self._flooded[next(iter(self._flooded))]
        return trim_instances(instances, fraction)

    def _find_markers(self, image_id: str, parameters: Parameters) -> LabelMap:
        given = self._threshold(image_id, parameters.foreground_threshold, parameters.border_weight)
        return find_markers(given, parameters)

    def _threshold_maps(self, image_id: str, foreground: float, border_weight: float) -> WatershedInput:
        parameters = Parameters(foreground_threshold=foreground, border_weight=border_weight)
        return threshold_maps(self._read(image_id)[0], parameters)

    def _read_image(self, image_id: str) -> tuple[UInt8Array, LabelMap]:
        truth = self.images.label_map(image_id)
        return read_maps(self.maps, image_id, truth, self.images.folder), truth
