"""Scores of all experiments: of this machine's runs, and of runs elsewhere from their compact copies.

`runs/<experiment>/cv.json` stays on the machine that made it. `submissions/scores/<experiment>.json` is its compact
copy and goes into the repository, so that a clone without runs still compares every experiment image by image. It has
the fields of `cv.json`, `effort` (parameters, minutes, hardware, commit) and `members` (weights by name). An image is
one line there: the numbers of IMAGE_FIELDS and the nuclei hit at each threshold, from which its average precision
follows exactly. `image` is empty where an experiment was recorded without its images.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nuclei.errors import UserError
from nuclei.evaluation.metric import THRESHOLDS
from nuclei.io.files import read_json, write_text
from nuclei.io.tables import read_table
from nuclei.provenance import code_commit

Summary = dict[str, Any]
"""The scores in `cv.json` of an experiment, see `evaluation.scores`, with its `effort` and `members`."""

IMAGE_FIELDS = ("fold", "modality", "nuclei", "predicted", "split", "merged")


def read_records(runs: Path, scores: Path) -> list[Summary]:
    """Every experiment with scores in a folder of runs or of compact copies, the run's where both have it.

    Nothing is written: `record_scores` does that. Best score first.

    Raises:
        UserError: no experiment was scored anywhere.
    """
    records = {path.stem: read_scores(path) for path in sorted(scores.glob("*.json"))}
    for path in sorted(runs.glob("*/cv.json")):
        summary = _read_run(path.parent, records)
        # through the compact form, so that a machine with the runs and one without compare the same numbers
        records[summary["experiment"]] = parse_scores(format_scores(summary), path)
    if not records:
        raise UserError(f"neither {runs} nor {scores} has a scored experiment; run `make submission`")
    return sorted(records.values(), key=lambda summary: (-summary["score"], summary["experiment"]))


def record_scores(runs: Path, scores: Path) -> None:
    """Writes the compact copy of every run's scores, so that the copies are never older than the runs."""
    records = {path.stem: read_scores(path) for path in sorted(scores.glob("*.json"))}
    for path in sorted(runs.glob("*/cv.json")):
        summary = _read_run(path.parent, records)
        write_scores(scores / f"{summary['experiment']}.json", summary)


def _read_run(folder: Path, records: Mapping[str, Summary]) -> Summary:
    """Scores, effort and members of a run; `records` are the compact copies of before.

    The commit of a run that does not name one is that of its copy while the scores are the same, else the code's.
    """
    summary: Summary = read_json(folder / "cv.json")
    effort = run_effort(folder)
    if not effort.get("commit"):
        copy = records.get(summary["experiment"])
        is_same = copy is not None and copy["score"] == summary["score"] and copy["ap"] == summary["ap"]
        effort["commit"] = copy["effort"].get("commit", "") if copy and is_same else code_commit()
    return {**summary, "effort": effort, "members": read_members(folder)}


def comparable(summaries: list[Summary], runs: Path) -> list[Summary]:
    """The summaries that were scored on the same images: those of this machine's runs, or else of most experiments.

    One that was recorded without its images counts by their number.

    Raises:
        UserError: runs of this machine that were scored on different images.
    """
    here = [summary for summary in summaries if (runs / summary["experiment"] / "cv.json").is_file()]
    for summary in here[1:]:
        if set(summary["image"]) != set(here[0]["image"]):
            raise UserError(
                f"{runs}: {summary['experiment']} was scored on {len(summary['image'])} images, "
                f"{here[0]['experiment']} on {len(here[0]['image'])} others; delete the older cv.json and make it again"
            )
    sets = [frozenset(summary["image"]) for summary in here or summaries if summary["image"]]
    if not sets:
        return [summary for summary in summaries if summary["n_images"] == summaries[0]["n_images"]]
    images = max(sets, key=sets.count)
    return [
        summary
        for summary in summaries
        if (frozenset(summary["image"]) == images if summary["image"] else summary["n_images"] == len(images))
    ]


def write_scores(path: Path, summary: Summary) -> None:
    """Writes the compact copy of a summary."""
    write_text(path, format_scores(summary))


def format_scores(summary: Summary) -> str:
    """The compact copy of a summary as text: JSON with one line an image, the rest indented."""
    images = {image_id: _pack(record) for image_id, record in sorted(summary["image"].items())}
    head = json.dumps({**summary, "image": {}}, indent=1, sort_keys=True)
    lines = ",\n".join(f"  {json.dumps(image_id)}: {json.dumps(values)}" for image_id, values in images.items())
    # at the start of a line, where no text of the JSON can be
    return head.replace('\n "image": {}', f'\n "image": {{\n{lines}\n }}' if lines else '\n "image": {}', 1) + "\n"


def read_scores(path: Path) -> Summary:
    """The summary of a compact copy.

    Raises:
        UserError: another kind of file.
    """
    return parse_scores(path.read_text(encoding="utf-8"), path)


def parse_scores(text: str, path: Path) -> Summary:
    """The summary that `format_scores` made a text of; errors name `path`.

    Raises:
        UserError: another kind of text.
    """
    try:
        summary: Summary = json.loads(text)
        images = {image_id: _unpack(values) for image_id, values in summary["image"].items()}
        return {"effort": {}, "members": {}, **summary, "image": images}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: no scores of an experiment ({error!r}); restore the file from git, or delete it and run "
            "`make leaderboard` where the runs are"
        ) from error


def _pack(record: Mapping[str, Any]) -> list[Any]:
    objects = record["nuclei"] + record["predicted"]
    # AP = hits / (nuclei + predicted - hits), solved for the hits; two empty images agree without a hit
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


def image_scores(summary: Summary) -> dict[str, float]:
    """Score of each image by id: the mean of its average precisions over the thresholds."""
    return {image_id: float(np.mean(record["ap"])) for image_id, record in summary["image"].items()}


def run_effort(folder: Path) -> dict[str, Any]:
    """Parameters, minutes over all folds, hardware and commit of a trained run; empty for one without checkpoints."""
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
    """Weights of an ensemble's members by name, from members.json; empty for a single experiment."""
    path = folder / "members.json"
    return dict(read_json(path)) if path.is_file() else {}


def write_members(folder: Path, members: Mapping[str, float]) -> None:
    write_text(folder / "members.json", json.dumps(dict(members), indent=1) + "\n")
