"""Scores of images under candidates, such as parameters of the post-processing: each is computed once."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from functools import cache, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from nuclei.arrays import Float64Array, LabelMap, UInt8Array
from nuclei.data.prepared_images import Images
from nuclei.evaluation.metric import THRESHOLDS, average_precision
from nuclei.evaluation.scores import Record, score_image
from nuclei.io.probability_maps import Maps, read_maps
from nuclei.postprocessing.parameters import DROPPING, Parameters
from nuclei.postprocessing.watershed import (
    Ground,
    Grown,
    are_nuclei,
    draw_nuclei,
    find_seeds,
    grow_seeds,
    lay_ground,
    measure_certainty,
    measure_nuclei,
    segment_maps,
    trim_nuclei,
)

Rows = npt.NDArray[np.int64]
"""Positions of images in the sorted list of ids."""
Candidate = TypeVar("Candidate", bound=Hashable)
HELD_IMAGES = 160
"""Images whose grounds a `MapScorer` holds, and four times as many whose maps."""


class Scores(Generic[Candidate]):
    """Scores of images under candidates, such as parameters, each computed once; (images, thresholds) each."""

    def __init__(
        self,
        image_ids: list[str],
        run: Callable[[Iterable[Any]], Iterator[Any]],
        advance: Callable[[int], Any] = lambda _: None,
    ) -> None:
        self.image_ids = image_ids
        self._run = run
        self._advance = advance
        self._table: dict[Candidate, Float64Array] = {}

    def fill(self, candidates: Iterable[Candidate], rows: Rows) -> None:
        """Computes what is missing of the candidates' scores on the images; an image is read once for all."""
        candidates = list(dict.fromkeys(candidates))
        for candidate in candidates:
            self._table.setdefault(candidate, np.full((len(self.image_ids), len(THRESHOLDS)), np.nan))
        missing = {
            int(row): [candidate for candidate in candidates if np.isnan(self._table[candidate][row, 0])]
            for row in rows
        }
        missing = {row: absent for row, absent in missing.items() if absent}
        results = self._run([(self.image_ids[row], absent) for row, absent in missing.items()])
        for (row, absent), scores in zip(missing.items(), results, strict=True):
            for candidate, score in zip(absent, scores, strict=True):
                self._table[candidate][row] = score
            self._advance(len(absent))

    def by_image(self, candidate: Candidate, rows: Rows) -> Float64Array:
        """Score of each of the images (R,), all of them computed before."""
        return np.asarray(self._table[candidate][rows].mean(axis=1))

    def mean(self, candidate: Candidate, rows: Rows) -> float:
        return float(self.by_image(candidate, rows).mean())


class MapScorer:
    """Scores of an image under candidates, or its record under one; opened once in each worker.

    Most candidates give the nuclei of another one. So seeds that are the same (by their digest, on the same ground)
    grow once, and nuclei of which the same ones are kept are drawn and scored once.
    """

    def __init__(self, maps: Path, processed: Path) -> None:
        self.maps, self.images = Maps(maps), Images(processed)
        # what takes memory is held for as many images as a coarse search comes back to; the rest is small
        self._read = lru_cache(maxsize=4 * HELD_IMAGES)(self._read_image)
        self._lay = lru_cache(maxsize=HELD_IMAGES)(self._lay_ground)
        self._find = lru_cache(maxsize=1)(self._find_seeds)
        self._certainty = cache(lambda image_id: measure_certainty(self._read(image_id)[0]))
        self._grown: dict[tuple[Any, ...], Grown] = {}
        self._digests: dict[tuple[Any, ...], bytes] = {}
        self._measures: dict[tuple[Any, ...], Float64Array] = {}
        self._scores: dict[tuple[Any, ...], Float64Array] = {}

    def __call__(self, job: tuple[str, list[Parameters] | Parameters]) -> list[Float64Array] | Record:
        image_id, parameters = job
        if isinstance(parameters, Parameters):
            maps, truth = self._read(image_id)
            return score_image(truth, segment_maps(maps, parameters))
        return [self._score(image_id, candidate) for candidate in parameters]

    def _score(self, image_id: str, parameters: Parameters) -> Float64Array:
        parameters = parameters.at(self._certainty(image_id))
        growing = replace(parameters, **{name: getattr(Parameters, name) for name in (*DROPPING, "rim")})
        seeded = image_id, growing
        if seeded not in self._digests:
            self._digests[seeded] = blake2b(self._find(image_id, growing).tobytes(), digest_size=16).digest()
        nuclei = image_id, growing.foreground, growing.border, self._digests[seeded]
        trimmed = *nuclei, parameters.rim
        if trimmed not in self._measures:
            self._measures[trimmed] = measure_nuclei(self._grow(nuclei, growing, parameters.rim))
        keep = are_nuclei(self._measures[trimmed], parameters)
        kept = *trimmed, keep.tobytes()
        if kept not in self._scores:
            label_map = draw_nuclei(self._grow(nuclei, growing, parameters.rim), keep)
            self._scores[kept] = average_precision(self._read(image_id)[1], label_map)
        return self._scores[kept]

    def _grow(self, nuclei: tuple[Any, ...], growing: Parameters, rim: float) -> Grown:
        """What grows under parameters, by the key of its nuclei, and is trimmed; the last that grew are held."""
        grown = self._grown.pop(nuclei, None)
        if grown is None:
            image_id = nuclei[0]
            ground = self._lay(image_id, growing.foreground, growing.border)
            grown = grow_seeds(self._read(image_id)[0], ground, self._find(image_id, growing))
        self._grown[nuclei] = grown
        if len(self._grown) > 2 * HELD_IMAGES:
            del self._grown[next(iter(self._grown))]
        return trim_nuclei(grown, rim)

    def _find_seeds(self, image_id: str, growing: Parameters) -> LabelMap:
        return find_seeds(self._lay(image_id, growing.foreground, growing.border), growing)

    def _lay_ground(self, image_id: str, foreground: float, border: float) -> Ground:
        return lay_ground(self._read(image_id)[0], Parameters(foreground=foreground, border=border))

    def _read_image(self, image_id: str) -> tuple[UInt8Array, LabelMap]:
        truth = self.images.label_map(image_id)
        return read_maps(self.maps, image_id, truth, self.images.folder), truth
