"""Scores of all experiments: of this machine's runs, and of others from their compact copies.

`runs/<experiment>/cv.json` stays on the machine that made it.
`submissions/scores/<experiment>.json` is its compact copy and goes into the repository, so that a
clone without runs still compares every experiment image by image. It has the fields of `cv.json`,
`effort` (parameters, minutes, hardware, commit) and `members` (weights by name). An image is one
line there: the numbers of IMAGE_FIELDS and the nuclei hit at each threshold, from which its average
precision follows exactly. `image` is empty where an experiment was recorded without its images.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import ConfigDict, Field

from nuclei.errors import UserError
from nuclei.evaluation.metric import THRESHOLDS
from nuclei.io.files import read_json, write_text
from nuclei.io.names import Name, check_name
from nuclei.io.records import Record, parse_json, validate_record
from nuclei.io.tables import read_table
from nuclei.provenance import code_commit

IMAGE_FIELDS = ("fold", "modality", "nuclei", "predicted", "split", "merged")
REMEDY = "restore the file from git, or delete it and run `make leaderboard` where the runs are"


class RecordedImage(Record):
    """Scores of an image, see `evaluation.scores.FoldImageScores`."""

    fold: int
    modality: str
    nuclei: int
    predicted: int
    hits: int
    missed: int
    extra: int
    split: int
    merged: int
    ap: list[float]
    """Average precision at each of THRESHOLDS."""


class RecordedGroup(Record):
    """Scores of a group of images; early records have fewer fields."""

    model_config = ConfigDict(extra="ignore")

    images: int
    score: float
    ap: dict[str, float] = Field(default_factory=dict)
    sizes: list[list[int]] | None = None
    parameters: dict[str, Any] | None = None
    """Tuned parameters of the post-processing, of a fold."""


class Effort(Record):
    """What it took to train an experiment, as far as it is known."""

    parameters: int | None = None
    minutes: float | None = None
    hardware: str | None = None
    commit: str = ""


class ScoreRecord(Record):
    """Scores of an experiment with its effort and members; early records have fewer fields."""

    model_config = ConfigDict(extra="ignore")

    experiment: Name
    n_images: int
    score: float
    low: float | None = None
    high: float | None = None
    ap: dict[str, float]
    sizes: list[list[int]] | None = None
    modality: dict[str, RecordedGroup]
    fold: dict[str, RecordedGroup]
    image: dict[str, RecordedImage]
    """By image id; empty where an experiment was recorded without its images."""
    parameters: dict[str, Any] | None = None
    effort: Effort = Effort()
    members: dict[str, float] = Field(default_factory=dict)

    @property
    def is_untuned(self) -> bool:
        """Whether this is the classical baseline, which has no maps and nothing to tune."""
        return "parameters" in self.model_fields_set and self.parameters is None and bool(self.image)

    def image_scores(self) -> dict[str, float]:
        """Score of each image by id: the mean of its average precisions over the thresholds."""
        return {image_id: float(np.mean(record.ap)) for image_id, record in self.image.items()}


AnyRecord = TypeVar("AnyRecord", bound=ScoreRecord)


def read_records(runs: Path, scores: Path) -> list[ScoreRecord]:
    """The experiments of `find_records`.

    Raises:
        UserError: no experiment was scored anywhere.
    """
    records = find_records(runs, scores)
    if not records:
        raise UserError(f"neither {runs} nor {scores} has a scored experiment; run `make submission`")
    return records


def find_records(runs: Path, scores: Path) -> list[ScoreRecord]:
    """Every experiment scored in runs or in compact copies; the run counts where both have it.

    Nothing is written: `record_scores` does that. Best score first.
    """
    records = {path.stem: read_scores(path) for path in sorted(scores.glob("*.json"))}
    for path in sorted(runs.glob("*/cv.json")):
        # through the compact form, so that a machine with the runs and one without compare the same
        # numbers
        record = parse_scores(format_scores(read_run(path.parent, records)), path, ScoreRecord)
        records[record.experiment] = record
    return sorted(records.values(), key=lambda record: (-record.score, record.experiment))


def record_scores(runs: Path, scores: Path) -> None:
    """Writes the compact copy of every run's scores, so that no copy is older than its run."""
    records = {path.stem: read_scores(path) for path in sorted(scores.glob("*.json"))}
    for path in sorted(runs.glob("*/cv.json")):
        values = read_run(path.parent, records)
        write_scores(scores / f"{check_name(values['experiment'])}.json", values)


def read_run(folder: Path, records: Mapping[str, ScoreRecord], file: str = "cv.json") -> dict[str, Any]:
    """Values of a run's scores with its effort and members; `records` are the earlier copies.

    The commit of a run that does not name one is that of its copy while the scores are the same,
    else the code's.
    """
    values: dict[str, Any] = read_json(folder / file)
    effort = run_effort(folder)
    if not effort.get("commit"):
        copy = records.get(values["experiment"])
        is_same = copy is not None and copy.score == values["score"] and copy.ap == values["ap"]
        effort["commit"] = copy.effort.commit if copy and is_same else code_commit()
    return {**values, "effort": effort, "members": read_members(folder)}


def comparable(records: Sequence[ScoreRecord], runs: Path) -> list[ScoreRecord]:
    """The experiments scored on the same images: those of this machine's runs, or else of most.

    One that was recorded without its images counts by their number.

    Raises:
        UserError: runs of this machine that were scored on different images.
    """
    here = [record for record in records if (runs / record.experiment / "cv.json").is_file()]
    for record in here[1:]:
        if set(record.image) != set(here[0].image):
            raise UserError(
                f"{runs}: {record.experiment} was scored on {len(record.image)} images, "
                f"{here[0].experiment} on {len(here[0].image)} others; delete the older cv.json "
                "and make it again"
            )
    sets = [frozenset(record.image) for record in here or records if record.image]
    if not sets:
        return [record for record in records if record.n_images == records[0].n_images]
    images = max(sets, key=sets.count)
    return [record for record in records if _is_scored_on(record, images)]


def _is_scored_on(record: ScoreRecord, images: frozenset[str]) -> bool:
    return frozenset(record.image) == images if record.image else record.n_images == len(images)


def write_scores(path: Path, values: Mapping[str, Any]) -> None:
    """Writes the compact copy of a run's values."""
    write_text(path, format_scores(values))


def format_scores(values: Mapping[str, Any]) -> str:
    """The compact copy of a run's values: JSON with one line an image, the rest indented."""
    images = {image_id: _pack(record) for image_id, record in sorted(values["image"].items())}
    head = json.dumps({**values, "image": {}}, indent=1, sort_keys=True)
    lines = ",\n".join(f"  {json.dumps(image_id)}: {json.dumps(packed)}" for image_id, packed in images.items())
    # at the start of a line, where no text of the JSON can be
    return (
        head.replace('\n "image": {}', f'\n "image": {{\n{lines}\n }}' if lines else '\n "image": {}', 1) + "\n"
    )


def read_scores(path: Path) -> ScoreRecord:
    """The record of a compact copy.

    Raises:
        UserError: another kind of file.
    """
    return parse_scores(path.read_bytes(), path, ScoreRecord)


def parse_scores(text: str | bytes, path: Path, model: type[AnyRecord]) -> AnyRecord:
    """The record of a compact copy as text; errors name `path`.

    Raises:
        UserError: another kind of text.
    """
    values = parse_json(text, str(path), REMEDY)
    try:
        images = {image_id: _unpack(packed) for image_id, packed in values["image"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"{path}: no scores of an experiment ({error!r}); {REMEDY}") from error
    return validate_record({**values, "image": images}, model, str(path), REMEDY)


def _pack(record: Mapping[str, Any]) -> list[Any]:
    objects = record["nuclei"] + record["predicted"]
    # AP = hits / (nuclei + predicted - hits), solved for the hits; two empty images agree without a
    # hit
    hits = [round(ap * objects / (1 + ap)) for ap in record["ap"]]
    return [*(record[name] for name in IMAGE_FIELDS), *hits]


def _unpack(values: list[Any]) -> dict[str, Any]:
    record = dict(zip(IMAGE_FIELDS, values, strict=False))
    hits = values[len(IMAGE_FIELDS) :]
    if len(hits) != len(THRESHOLDS):
        raise UserError(f"an image has {len(values)} values, expected {len(IMAGE_FIELDS) + len(THRESHOLDS)}")
    objects = record["nuclei"] + record["predicted"]
    record["ap"] = [count / (objects - count) if objects else 1.0 for count in hits]
    record |= {
        "hits": hits[0],
        "missed": record["nuclei"] - hits[0],
        "extra": record["predicted"] - hits[0],
    }
    return record


def run_effort(folder: Path) -> dict[str, Any]:
    """Parameters, minutes over all folds, hardware, commit of a run; empty without checkpoints."""
    trained = {path.parent for name in ("model.pt", "best.pt") for path in folder.glob(f"fold_*/{name}")}
    if not trained:
        return {}
    from nuclei.models.checkpoint_file import find_result, load_checkpoint

    efforts = [load_checkpoint(find_result(fold))["effort"] for fold in sorted(trained)]
    logs = [read_table(path, ("minutes",), "train again") for path in sorted(folder.glob("fold_*/log.csv"))]
    return {
        "parameters": efforts[0]["parameters"],
        "minutes": round(sum(float(log.minutes.iloc[-1]) for log in logs), 1),
        "hardware": ", ".join(sorted({effort["hardware"] for effort in efforts})),
        "commit": ", ".join(sorted({effort.get("commit", "") for effort in efforts} - {""})),
    }


def read_members(folder: Path) -> dict[str, float]:
    """Ensemble weights by member, from members.json; empty for a single experiment."""
    path = folder / "members.json"
    return dict(read_json(path)) if path.is_file() else {}


def write_members(folder: Path, members: Mapping[str, float]) -> None:
    write_text(folder / "members.json", json.dumps(dict(members), indent=1) + "\n")
