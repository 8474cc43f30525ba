"""Scores on unseen sources of all experiments: of this machine's runs and of compact copies.

`runs/by_source/<experiment>/unseen.json` stays on the machine that made it.
`submissions/scores/unseen/<experiment>.json` is its compact copy and goes into the repository, in
the form of the copies of `score_records`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nuclei.evaluation.bootstrap import bootstrap_interval
from nuclei.evaluation.unseen import Expectation, TunedGain, expect_elsewhere
from nuclei.io.names import check_name
from nuclei.reporting.score_records import ScoreRecord, format_scores, parse_scores, read_run, write_scores

BY_SOURCE = "by_source"
"""Folder of the runs that hold whole sources out, in the folder of all runs."""
UNSEEN = "unseen"
"""Folder of the compact copies, in that of the scores on seen sources."""


class UnseenRecord(ScoreRecord):
    """Scores of an experiment on unseen sources, see `evaluation.unseen.UnseenScores`."""

    source: dict[str, str]
    test_modality: dict[str, int]
    tuned: TunedGain | None
    """None for the classical baseline, which has nothing to tune."""

    @property
    def n_sources(self) -> int:
        return len(set(self.source.values()))

    def interval(self) -> tuple[float, float]:
        """Bounds that hold 95% of the means over resampled sources."""
        scores = self.image_scores()
        return bootstrap_interval(
            np.array(list(scores.values())), [self.source[image_id] for image_id in scores]
        )

    def expectation(self) -> Expectation:
        """Score to expect in a new laboratory, weighted to the modalities of the test images."""
        modality = {image_id: image.modality for image_id, image in self.image.items()}
        return expect_elsewhere(self.image_scores(), modality, self.source, self.test_modality)


def untrained_record(
    record: ScoreRecord, source: Mapping[str, str], test_modality: Mapping[str, int]
) -> UnseenRecord:
    """The scores of the classical baseline, to which every source is an unseen one."""
    own = {image_id: source[image_id] for image_id in record.image}
    return UnseenRecord(**dict(record), source=own, test_modality=dict(test_modality), tuned=None)


def read_unseen_records(runs: Path, scores: Path) -> dict[str, UnseenRecord]:
    """Records by experiment, best first; the run counts where a compact copy has it too."""
    records = _read_copies(scores)
    for path in _find_runs(runs):
        text = format_scores(read_run(path.parent, records, path.name))
        record = parse_scores(text, path, UnseenRecord)
        records[record.experiment] = record
    return dict(sorted(records.items(), key=lambda item: (-item[1].score, item[0])))


def record_unseen(runs: Path, scores: Path) -> None:
    """Writes the compact copy of every run's scores on unseen sources."""
    copies = _read_copies(scores)
    for path in _find_runs(runs):
        values = read_run(path.parent, copies, path.name)
        write_scores(scores / UNSEEN / f"{check_name(values['experiment'])}.json", values)


def _read_copies(scores: Path) -> dict[str, UnseenRecord]:
    copies = sorted((scores / UNSEEN).glob("*.json"))
    return {path.stem: parse_scores(path.read_bytes(), path, UnseenRecord) for path in copies}


def _find_runs(runs: Path) -> list[Path]:
    return sorted((runs / BY_SOURCE).glob("*/unseen.json"))
