"""Scores of others name their test set; ours is unknown only until Kaggle has scored it."""

import pytest

from nuclei.reporting.reference_scores import (
    IMAGES,
    REFERENCES,
    UNKNOWN,
    describe_references,
    reference_section,
)


def test_every_score_has_its_images_and_its_source():
    rows = [line for line in reference_section(False) if line.startswith("|")][2:]
    assert len(rows) == len(REFERENCES) == 3
    for row, reference in zip(rows, REFERENCES, strict=True):
        assert IMAGES in row
        assert f"({reference.address})" in row


@pytest.mark.parametrize("submitted", [False, True])
def test_ours_is_unknown_until_kaggle_has_scored_a_submission(submitted):
    assert (UNKNOWN in "\n".join(reference_section(submitted))) is not submitted


def test_the_terminal_gets_two_lines():
    scores, note = describe_references()
    assert note == UNKNOWN
    for number in ("0.632", "0.528", "0.443"):
        assert number in scores
