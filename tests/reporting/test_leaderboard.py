"""The leaderboard: differences are paired, noise is called noise, nothing is made up."""

import hashlib

import numpy as np
import pytest

from nuclei.evaluation.bootstrap import bootstrap_interval
from nuclei.io.files import write_json
from nuclei.reporting.differences import NOISE, WORSE
from nuclei.reporting.leaderboard import (
    OTHER,
    entries_by_experiment,
    leaderboard,
    leaderboard_page,
    name_members,
    scored_modalities,
)
from nuclei.reporting.score_records import ScoreRecord
from nuclei.reporting.unseen_records import UnseenRecord, read_unseen_records, record_unseen
from nuclei.submission.submit import Entry

THRESHOLDS = [f"{percent / 100:.2f}" for percent in range(50, 100, 5)]


def make_record(name, scores, members=None, effort=None):
    """The record of an experiment with one score for each image, equal at all thresholds."""
    counts = dict.fromkeys(("nuclei", "predicted", "hits", "missed", "extra", "split", "merged"), 0)
    images = {}
    for number, score in enumerate(scores):
        images[f"image{number}"] = {"ap": [score] * 10, "fold": 0, "modality": "grey_tissue", **counts}
    mean = float(np.mean(scores))
    return ScoreRecord(
        experiment=name,
        n_images=len(scores),
        score=mean,
        ap=dict.fromkeys(THRESHOLDS, mean),
        modality={"grey_tissue": {"images": len(scores), "score": mean}},
        fold={},
        image=images,
        members=members or {},
        effort=effort or {},
    )


@pytest.fixture
def summaries():
    """The best, one slightly worse on every image, one as good with other mistakes."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.2, 0.8, 200)
    noisy = scores + rng.normal(0, 0.1, 200)
    noisy += scores.mean() - noisy.mean() - 1e-4
    trained = {
        "parameters": 2_000_000,
        "minutes": 10.0,
        "hardware": "2 CPU cores",
        "commit": "abcd1234",
    }
    return [
        make_record("best", scores, {"noisy": 3.0, "worse": 1.0}),
        make_record("noisy", noisy, effort=trained),
        make_record("worse", scores - 0.01, effort=trained),
    ]


def rows(frame):
    return {row["experiment"]: row for row in frame.to_dict("records")}


def test_a_small_difference_on_every_image_counts_and_a_scattered_one_is_noise(summaries):
    table = rows(leaderboard(summaries, summaries, {}))
    assert table["worse"]["verdict"] == WORSE
    assert table["noisy"]["verdict"] == NOISE
    assert table["worse"]["behind"] == pytest.approx(0.01)
    # unpaired, the two could not be told apart
    assert table["worse"]["high"] > table["best"]["low"]


def test_the_interval_of_a_mean_holds_the_truth_about_19_times_in_20():
    rng = np.random.default_rng(0)
    held = [low <= 0 <= high for low, high in (bootstrap_interval(rng.normal(0, 1, 100)) for _ in range(200))]
    assert 0.9 < np.mean(held) < 0.99


def test_an_ensemble_costs_what_its_members_cost_together(summaries):
    table = rows(leaderboard(summaries, summaries, {}))
    assert (table["best"]["parameters"], table["best"]["minutes"]) == (4_000_000, 20.0)
    assert table["best"]["members"] == "noisy x 3, worse"
    assert np.isnan(rows(leaderboard(summaries[:2], summaries[:2], {}))["best"]["parameters"])


def test_members_of_equal_weight_have_no_number():
    assert name_members({"a": 0.5, "b": 0.5}) == "a, b"


def test_an_experiment_on_other_images_stands_apart_and_has_no_difference(summaries):
    other = make_record("other", [0.99] * 5)
    frame = leaderboard([other, *summaries], summaries, {})
    assert list(frame.experiment) == ["best", "noisy", "worse", "other"]
    assert rows(frame)["other"]["verdict"] == OTHER
    above, below = leaderboard_page(frame).split("Scored on other images")
    assert "[best](best.csv)" in above
    assert "[other](other.csv)" not in above
    assert "[other](other.csv)" in below


def test_an_experiment_recorded_without_its_images_keeps_its_interval_and_gets_no_verdict(
    summaries,
):
    old = make_record("old", [0.5] * 200).model_copy(
        update={
            "image": {},
            "low": 0.45,
            "high": 0.55,
            "ap": {"0.50": 0.7},
        }
    )
    table = rows(leaderboard([*summaries, old], [*summaries, old], {}))
    assert (table["old"]["low"], table["old"]["high"], table["old"]["verdict"]) == (0.45, 0.55, "")
    line = next(
        line
        for line in leaderboard_page(leaderboard([*summaries, old], [*summaries, old], {})).splitlines()
        if "[old]" in line
    )
    assert "(0.450 to 0.550)" in line
    assert "nan" not in line


def test_the_page_has_at_most_nine_columns_and_names_the_members(summaries):
    page = leaderboard_page(leaderboard(summaries, summaries, {}))
    header = next(line for line in page.splitlines() if line.startswith("| experiment"))
    assert header.count("|") - 1 <= 9
    assert "- `best`: noisy x 3, worse" in page


def test_modalities_are_those_that_were_scored(summaries):
    assert scored_modalities(summaries) == ["grey_tissue"]


def test_the_page_shows_kaggles_scores_of_the_very_file(summaries, tmp_path):
    content = b"ImageId,EncodedPixels\n"
    (tmp_path / "best.csv").write_bytes(content)
    (tmp_path / "worse.csv").write_bytes(content + b"a,1 1\n")
    digest = hashlib.sha256(content).hexdigest()
    entries = [
        Entry("best.csv", digest, "", "1", "complete", "", "0.51", "0.62"),
        Entry("worse.csv", digest, "", "1", "complete", "", "0.99", "0.99"),  # the file has changed since
        Entry("noisy.csv", digest, "", "1", "complete", "", "0.99", "0.99"),  # and this one is gone
    ]
    found = entries_by_experiment(entries, tmp_path)
    assert set(found) == {"best"}
    page = leaderboard_page(leaderboard(summaries, summaries, found))
    assert "0.5100 / 0.6200" in page
    assert "0.99" not in page


def test_intervals_resample_sources_where_every_image_has_one():
    # all images of a source are equally hard, so that a source tells no more than one image
    summary = make_record("best", np.repeat([0.2, 0.4, 0.6, 0.8], 50))
    sources = {image_id: f"source{number // 50}" for number, image_id in enumerate(summary.image)}
    by_image = rows(leaderboard([summary], [summary], {}))["best"]
    frame = leaderboard([summary], [summary], {}, sources)
    by_source = rows(frame)["best"]
    assert by_source["high"] - by_source["low"] > 5 * (by_image["high"] - by_image["low"])
    assert (by_image["sources"], by_source["sources"]) == (None, 4)
    assert "4 resampled sources" in leaderboard_page(frame)
    del sources["image0"]
    assert rows(leaderboard([summary], [summary], {}, sources))["best"]["low"] == by_image["low"]


def test_a_difference_on_one_source_alone_is_noise():
    lower = 0.5 - np.repeat([0.1, 0.0, 0.0, 0.0], 50)
    both = [make_record("best", np.full(200, 0.5)), make_record("lower", lower)]
    sources = {image_id: f"source{number // 50}" for number, image_id in enumerate(both[0].image)}
    assert rows(leaderboard(both, both, {}))["lower"]["verdict"] == WORSE
    assert rows(leaderboard(both, both, {}, sources))["lower"]["verdict"] == NOISE


def make_unseen(name, scores, count=4):
    """The record of an experiment on unseen sources, with equally many images of each."""
    record = make_record(name, np.repeat(scores, count))
    source = {image_id: f"source{number // count}" for number, image_id in enumerate(record.image)}
    tuned = {"score": record.score, "gain": 0.01, "low": -0.01, "high": 0.03}
    return UnseenRecord(**dict(record), source=source, test_modality={"grey_tissue": 3}, tuned=tuned)


def unseen_frame(summaries, *records):
    return leaderboard(summaries, summaries, {}, None, {record.experiment: record for record in records})


def test_the_score_on_unseen_sources_is_beside_that_on_seen_ones_and_a_dash_where_there_is_none(summaries):
    frame = unseen_frame(summaries, make_unseen("noisy", [0.2, 0.4, 0.6]))
    table = rows(frame)
    assert table["noisy"]["unseen"] == pytest.approx(0.4)
    assert table["noisy"]["unseen_low"] < 0.3 < 0.5 < table["noisy"]["unseen_high"]
    lines = leaderboard_page(frame).splitlines()
    cells = {line.split("](")[0][3:]: line.split(" | ")[2] for line in lines if line.startswith("| [")}
    assert cells["noisy"].startswith("0.4000 (0.")
    assert cells["best"] == cells["worse"] == "-"


def test_a_verdict_on_unseen_sources_is_a_paired_difference_over_them(summaries):
    first = make_unseen("best", [0.2, 0.4, 0.6, 0.8])
    worse = make_unseen("worse", [0.19, 0.39, 0.59, 0.79])
    noisy = make_unseen("noisy", [0.2, 0.4, 0.6, 0.7])
    table = rows(unseen_frame(summaries, first, worse, noisy))
    assert [table[name]["unseen_verdict"] for name in ("best", "worse", "noisy")] == ["best", WORSE, NOISE]


def test_an_experiment_that_was_trained_for_unseen_sources_alone_is_shown_with_them(summaries):
    page = leaderboard_page(unseen_frame(summaries, make_unseen("only", [0.2, 0.4])))
    above, below = page.split("## Unseen sources")
    assert "only" not in above
    assert "| only | **0.3000**" in below
    assert "expect a score of about 0.30 with only (95%: 0.20 to 0.40)" in below
    assert "as the test images have them (3 grey tissue)" in " ".join(below.split())
    alone = leaderboard_page(leaderboard([], [], {}, None, {"only": make_unseen("only", [0.2, 0.4])}))
    assert "| only | **0.3000**" in alone


def test_a_clone_without_runs_has_the_scores_on_unseen_sources(tmp_path):
    record = make_unseen("one", [0.25, 0.5])
    values = record.model_dump(mode="json", exclude={"effort", "members"})
    write_json(tmp_path / "runs" / "by_source" / "one" / "unseen.json", values)
    record_unseen(tmp_path / "runs", tmp_path / "scores")
    found = read_unseen_records(tmp_path / "nowhere", tmp_path / "scores")
    assert found == read_unseen_records(tmp_path / "runs", tmp_path / "scores")
    assert (found["one"].source, found["one"].n_sources) == (record.source, 2)
