import re

import pytest

from nuclei.data.prepared_images import Images
from nuclei.errors import UserError
from nuclei.reporting import screening
from nuclei.reporting.screening import ScreenedRun, compare_runs, format_screening, screening_page

SOURCES = {"a": "one", "b": "one", "c": "two", "d": "two"}
BASE = {"a": 0.5, "b": 0.4, "c": 0.6, "d": 0.3}


class Pictures:
    """Stands for the prepared images."""

    def source(self, image_id):
        return SOURCES[image_id]

    def modality(self, image_id):
        return "grey_tissue"


def run(name, scores, checkpoint="model.pt"):
    return ScreenedRun(
        experiment=name,
        steps=250,
        batch="8 crops of 128 pixels",
        score=sum(scores.values()) / len(scores),
        minutes=1.5,
        image_score=scores,
        image_half=dict.fromkeys(scores, 0),
        tuned=[{}, {}],
        checkpoint=checkpoint,
    )


def shifted(**by):
    return compare_runs(
        run("mine", {name: BASE[name] + by[name] for name in BASE}), run("plain", BASE), Pictures()
    )


def test_the_error_is_over_sources_and_not_over_images():
    result = shifted(a=0.2, b=0.2, c=0.1, d=0.1)
    assert result.difference == pytest.approx(0.15)
    # of two sources, the mean of two drawn ones is 0.1, 0.15, 0.15 or 0.2
    assert (result.low, result.high) == pytest.approx((0.1, 0.2))
    assert result.error == pytest.approx(0.05 / 2**0.5, rel=0.05)
    assert (result.sources, result.sources_better) == (2, 2)


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ((0.2, 0.2, 0.1, 0.1), "mine is better than plain under this budget, by more than seeds differ"),
        ((-0.2, -0.2, -0.1, -0.1), "mine is worse than plain under this budget"),
        ((0.01, 0.01, 0.02, 0.02), "no more than another seed can make"),
        ((0.2, 0.2, -0.1, -0.1), "no difference that these images can tell"),
    ],
)
def test_the_verdict_is_of_the_interval_and_of_the_spread_of_seeds(by, said):
    assert said in shifted(**dict(zip(BASE, by, strict=True))).verdict


def test_the_images_that_differ_most_come_first_and_lines_fit_the_terminal():
    result = shifted(a=0.1, b=-0.3, c=0.2, d=0.0)
    assert [one.image_id for one in result.images] == ["b", "c", "a", "d"]
    text = format_screening(result)
    assert "  -0.300  0.400 -> 0.100  b  grey_tissue" in text
    assert max(map(len, text.splitlines())) <= 80


def test_runs_of_other_images_are_refused():
    with pytest.raises(UserError, match="run `make screen` again"):
        compare_runs(run("mine", {"a": 0.1}), run("plain", BASE), Pictures())


def test_the_page_has_both_predictions_of_the_images_that_differ_most(images, monkeypatch):
    monkeypatch.setattr(screening, "LISTED", 2)
    ids = images.ids("train")[:3]
    scores = dict(zip(ids, (0.1, 0.5, 0.4), strict=True))
    other = dict(zip(ids, (0.3, 0.5, 0.2), strict=True))
    index = images.index.assign(source="one")
    known = Images(images.folder)
    monkeypatch.setattr(known, "_rows", {row["image_id"]: row for row in index.to_dict("records")})
    result = compare_runs(run("mine", scores), run("plain", other), known)
    page = screening_page(result, known, {"mine": known.label_map, "plain": known.label_map})
    assert re.findall(r'"image_id": ?"(\w+)"', page) == [ids[0], ids[2]]
    assert page.count('"paths"') == 4
    assert "mine against plain" in page
