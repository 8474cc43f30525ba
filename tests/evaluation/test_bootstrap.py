import numpy as np
import pytest

from nuclei.evaluation.bootstrap import bootstrap_interval, paired_difference

# four sources of very different scores, a hundred images each
SCORES = np.repeat([0.2, 0.4, 0.6, 0.8], 100) + np.random.default_rng(0).normal(0, 0.01, 400)
SOURCES = np.repeat(["a", "b", "c", "d"], 100).tolist()


def test_resampled_sources_give_the_interval_that_a_new_source_deserves():
    narrow = np.subtract(*bootstrap_interval(SCORES)[::-1])
    wide = np.subtract(*bootstrap_interval(SCORES, SOURCES)[::-1])
    assert narrow == pytest.approx(4 * SCORES.std() / np.sqrt(400), rel=0.1)
    assert wide == pytest.approx(4 * SCORES.std() / np.sqrt(4), rel=0.2)


def test_a_source_each_is_the_bootstrap_over_images():
    values = np.arange(10.0)
    assert bootstrap_interval(values, [str(number) for number in range(10)]) == bootstrap_interval(values)


def test_a_large_source_weighs_as_many_images_as_it_has():
    low, high = bootstrap_interval(np.array([1.0] * 99 + [0.0]), ["large"] * 99 + ["small"])
    assert (low, high) == (0.0, 1.0)
    assert paired_difference({"x": 1.0, "y": 0.5}, {"x": 0.5, "y": 0.5})[0] == pytest.approx(0.25)


def test_a_gain_on_one_source_alone_is_not_told_from_zero():
    base = dict(zip(map(str, range(400)), SCORES, strict=True))
    better = {i: s + (0.1 if SOURCES[int(i)] == "a" else -0.01) for i, s in base.items()}
    sources = dict(zip(base, SOURCES, strict=True))
    assert paired_difference(better, base)[1] > 0
    assert paired_difference(better, base, sources)[1] < 0
