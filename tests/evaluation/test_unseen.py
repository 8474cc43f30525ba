"""Scores on unseen sources: whole sources only, untuned parameters, a laboratory as the unit."""

import numpy as np
import pandas as pd
import pytest
from sample_runs import write_runs

from nuclei.data.prepared_images import Images
from nuclei.errors import UserError
from nuclei.evaluation.scores import score_image
from nuclei.evaluation.tuning import START
from nuclei.evaluation.unseen import expect_elsewhere, read_unseen, score_unseen, summarise_unseen
from nuclei.io.files import write_csv, write_json
from nuclei.io.probability_maps import Maps
from nuclei.postprocessing.watershed import segment_maps


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six images of three sources in two folds, and a test image."""
    folder = tmp_path_factory.mktemp("unseen")
    write_runs(folder, {"one": 0.2}, count=6, size=64)
    index = Images(folder / "processed").index
    index["source"] = ["a", "a", "b", "b", "c", "c"]
    test = index.iloc[[0]].assign(image_id="test", subset="test")
    write_csv(folder / "processed" / "index.csv", pd.concat([index, test]))
    table = index[["image_id", "modality", "nuclei"]].assign(fold=[0, 0, 1, 1, 1, 1], group=index.source)
    write_csv(folder / "splits_source.csv", table)
    return folder


def maps(folder):
    return folder / "runs" / "one" / "oof.npz"


def score(folder, splits="splits_source.csv"):
    return score_unseen(maps(folder), maps(folder).with_name("cv.json"), folder / "processed", folder / splits)


def test_an_image_is_scored_with_parameters_that_no_image_chose(folder):
    found, archive, images = score(folder), Maps(maps(folder)), Images(folder / "processed")
    for image_id in archive.ids:
        expected = score_image(images.label_map(image_id), segment_maps(archive[image_id], START))
        assert found.image[image_id].ap == expected.ap
    assert found.test_modality == {"small_fluorescence": 1}
    assert found.source["image003"] == "b"


def test_what_is_written_is_read_and_a_card_has_its_interval_over_sources(folder):
    found = score(folder)
    write_json(folder / "unseen.json", found.model_dump(mode="json"))
    assert read_unseen(folder / "unseen.json") == found
    summary = summarise_unseen(found)
    assert (summary.images, summary.sources) == (6, 3)
    assert summary.low <= summary.score <= summary.high


def test_folds_that_hold_out_a_part_of_a_source_are_refused(folder):
    table = pd.read_csv(folder / "splits_source.csv").assign(fold=[0, 1, 1, 1, 1, 1])
    write_csv(folder / "parts.csv", table)
    with pytest.raises(UserError, match="1 sources are in several folds, such as a"):
        score(folder, "parts.csv")


def test_a_new_laboratory_is_a_source_and_not_an_image():
    scores = dict.fromkeys(map(str, range(90)), 0.9) | {"90": 0.3, "91": 0.5}
    source = {image_id: "large" for image_id in scores} | {"90": "small", "91": "tissue"}
    modality = {image_id: "cells" for image_id in scores} | {"91": "tissue"}
    found = expect_elsewhere(scores, modality, source, {"cells": 3, "tissue": 1})
    assert found.score == pytest.approx((3 * (0.9 + 0.3) / 2 + 0.5) / 4)
    assert (found.lowest, found.highest) == (pytest.approx(0.3), pytest.approx(0.9))
    assert found.low <= 0.35
    assert found.high >= 0.8


def test_a_modality_without_scores_counts_as_the_mean_of_all_sources():
    found = expect_elsewhere({"a": 0.2, "b": 0.6}, {"a": "x", "b": "y"}, {"a": "1", "b": "2"}, {"new": 5})
    assert found.score == pytest.approx(0.4)
    assert np.isfinite([found.low, found.high]).all()
