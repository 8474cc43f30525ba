"""Records of scores: the compact copies say what cv.json says, and outlive the runs."""

import shutil

import numpy as np
import pandas as pd
import pytest

from nuclei.evaluation.metric import average_precision
from nuclei.evaluation.scores import score_image, summarise_scores
from nuclei.io.files import read_json, write_json
from nuclei.postprocessing.parameters import Parameters, Tuned
from nuclei.reporting import score_records
from nuclei.reporting.score_records import (
    comparable,
    read_members,
    read_records,
    read_scores,
    record_scores,
    write_members,
)
from nuclei.synthetic.images import make_image


def make_summary(name, rng, count=6, prefix="image"):
    """The summary of an experiment that loses and moves nuclei, more of them in a larger fold."""
    records, rows = [], []
    for number in range(count):
        truth = make_image("small_fluorescence", number, 64, 64)[1]
        predicted = np.roll(
            np.where(rng.random(truth.max() + 1) < 0.8, np.arange(truth.max() + 1), 0)[truth], 1, 0
        )
        records.append(score_image(truth, predicted.astype(np.int32)))
        rows.append({"image_id": f"{prefix}{number}", "fold": number % 2, "modality": "small_fluorescence"})
    tuned = {fold: Tuned(Parameters(seed_threshold=0.3 + fold / 10), {}) for fold in (0, 1)}
    return summarise_scores(name, pd.DataFrame(rows), records, tuned).to_dict()


def write_run(runs, summary):
    write_json(runs / summary["experiment"] / "cv.json", summary)


@pytest.fixture
def folders(tmp_path):
    """Runs of two experiments, and a place for their compact copies."""
    rng = np.random.default_rng(0)
    for name in ("first", "second"):
        write_run(tmp_path / "runs", make_summary(name, rng))
    return tmp_path / "runs", tmp_path / "scores"


def test_a_clone_without_runs_knows_what_the_machine_with_them_knew(folders, tmp_path):
    record_scores(*folders)
    with_runs = read_records(*folders)
    without = read_records(tmp_path / "nowhere", folders[1])
    assert [record.experiment for record in without] == [record.experiment for record in with_runs]
    assert with_runs == without


def test_an_image_of_the_copy_has_the_counts_of_the_run(folders):
    runs, scores = folders
    record_scores(runs, scores)
    original, copy = read_json(runs / "first" / "cv.json"), read_scores(scores / "first.json")
    for image_id, record in original["image"].items():
        remembered = copy.image[image_id]
        assert remembered.ap == pytest.approx(record["ap"], abs=1e-6)
        assert remembered.model_dump(exclude={"ap"}) == {
            name: record[name] for name in record if name not in ("ap", "sizes")
        }


@pytest.mark.parametrize(("nuclei", "predicted"), [(0, 0), (0, 3), (3, 0), (3, 3)])
def test_an_image_without_nuclei_on_either_side_comes_back_as_it_was(tmp_path, nuclei, predicted):
    maps = [np.repeat(np.arange(count + 1), 4).reshape(-1, 4).astype(np.int32) for count in (nuclei, predicted)]
    truth, found = (np.pad(label_map, ((0, 4 - len(label_map)), (0, 0))) for label_map in maps)
    table = pd.DataFrame([{"image_id": "a", "fold": 0, "modality": "grey_tissue"}])
    summary = summarise_scores("one", table, [score_image(truth, found)], {0: None}).to_dict()
    score_records.write_scores(tmp_path / "one.json", {**summary, "effort": {}, "members": {}})
    assert read_scores(tmp_path / "one.json").image["a"].ap == average_precision(truth, found).tolist()


def test_reading_writes_nothing(folders, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    read_records(*folders)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_text_that_looks_like_the_place_of_the_images_does_not_become_it(folders):
    summary = make_summary("first", np.random.default_rng(0)) | {
        "effort": {"hardware": '"image": {}'},
        "members": {},
    }
    score_records.write_scores(folders[1] / "first.json", summary)
    copy = read_scores(folders[1] / "first.json")
    assert copy.effort.hardware == '"image": {}'
    assert copy.image.keys() == summary["image"].keys()


def test_an_experiment_whose_run_is_gone_is_not_forgotten(folders):
    runs, scores = folders
    record_scores(runs, scores)
    before = read_records(runs, scores)
    shutil.rmtree(runs / "first")
    write_run(runs, make_summary("third", np.random.default_rng(1)))
    names = {record.experiment for record in read_records(runs, scores)}
    assert names == {record.experiment for record in before} | {"third"}


def test_the_copies_do_not_change_when_nothing_did_even_if_the_code_was_committed(folders, monkeypatch):
    runs, scores = folders
    monkeypatch.setattr(score_records, "code_commit", lambda: "11111111")
    record_scores(runs, scores)
    before = {path.name: path.read_bytes() for path in scores.iterdir()}
    monkeypatch.setattr(score_records, "code_commit", lambda: "22222222")
    assert {record.effort.commit for record in read_records(runs, scores)} == {"11111111"}
    assert {path.name: path.read_bytes() for path in scores.iterdir()} == before
    record_scores(runs, scores)
    assert {path.name: path.read_bytes() for path in scores.iterdir()} == before
    write_run(runs, make_summary("first", np.random.default_rng(5)))
    commits = {record.experiment: record.effort.commit for record in read_records(runs, scores)}
    assert commits == {"first": "22222222", "second": "11111111"}


def test_a_copy_has_a_line_for_each_image(folders):
    record_scores(*folders)
    lines = (folders[1] / "first.json").read_text().splitlines()
    assert sum(line.startswith('  "image') for line in lines) == 6


def test_experiments_scored_on_other_images_are_told_apart(folders):
    runs, scores = folders
    record_scores(runs, scores)
    other = make_summary("other", np.random.default_rng(2), count=4, prefix="strange")
    score_records.write_scores(scores / "other.json", {**other, "effort": {}, "members": {}})
    summaries = read_records(runs, scores)
    assert "other" in {record.experiment for record in summaries}
    assert {record.experiment for record in comparable(summaries, runs)} == {"first", "second"}


def test_runs_of_one_folder_that_disagree_about_the_images_are_an_error(folders):
    runs, scores = folders
    write_run(runs, make_summary("third", np.random.default_rng(1), count=4))
    with pytest.raises(ValueError, match=r"third was scored on 4 images.*delete the older cv.json"):
        comparable(read_records(runs, scores), runs)


def test_no_scores_anywhere_and_a_broken_copy_are_errors_with_a_remedy(tmp_path):
    with pytest.raises(ValueError, match="make submission"):
        read_records(tmp_path / "runs", tmp_path / "scores")
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "bad.json").write_text('{"image": {"a": [1, 2]}}')
    with pytest.raises(ValueError, match=r"bad\.json: no scores .*restore the file from git"):
        read_records(tmp_path / "runs", tmp_path / "scores")


def test_members_of_an_ensemble_come_back_in_their_order(tmp_path):
    assert read_members(tmp_path) == {}
    write_members(tmp_path, {"zebra": 3.0, "ant": 1.0})
    assert list(read_members(tmp_path).items()) == [("zebra", 3.0), ("ant", 1.0)]
