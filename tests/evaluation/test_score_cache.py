import numpy as np
import pytest

from nuclei.evaluation.score_cache import Scores, clustered_error


def scores_of(gain_by_image, sources):
    """Scores of the candidates "base", 0.5 everywhere, and "better"."""
    names = [str(number) for number in range(len(gain_by_image))]

    def run(jobs):
        for name, candidates in jobs:
            gains = {"base": 0.0, "better": gain_by_image[int(name)]}
            yield [np.full(10, 0.5 + gains[candidate]) for candidate in candidates]

    scores = Scores(names, run, sources=sources)
    scores.fill(["base", "better"], np.arange(len(names)))
    return scores


GAINS = [0.02] * 40 + [-0.01] * 40
SOURCES = ["one"] * 40 + [name for name in "abcd" for _ in range(10)]


def test_a_gain_on_one_large_source_alone_is_not_taken_for_one():
    rows = np.arange(80)
    assert scores_of(GAINS, None).gains("better", "base", rows, 1.0)
    assert not scores_of(GAINS, SOURCES).gains("better", "base", rows, 1.0)


def test_a_gain_on_most_sources_is_one():
    assert scores_of([0.01, 0.02] * 40, SOURCES).gains("better", "base", np.arange(80), 1.0)


def test_several_images_of_a_single_source_tell_nothing():
    assert not scores_of([0.1, 0.2], ["one", "one"]).gains("better", "base", np.arange(2), 0.5)


def test_the_clustered_error_of_independent_values_is_the_usual_one():
    values = np.random.default_rng(0).normal(size=50)
    assert clustered_error(values, np.arange(50)) == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def test_copies_of_values_in_clusters_do_not_lower_the_error():
    values = np.random.default_rng(0).normal(size=20)
    alone = clustered_error(values, np.arange(20))
    assert clustered_error(np.repeat(values, 9), np.repeat(np.arange(20), 9)) == pytest.approx(alone)
