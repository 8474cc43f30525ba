"""Scores of others in the competition, to compare a score of this project with."""

from dataclasses import dataclass

from nuclei.reporting.rendering import table_line

IMAGES = "106 scored images of stage 2"
"""What all of them were measured on: the private leaderboard. 70 of these images come from
laboratories without a training image."""
UNKNOWN = "What this project scores on Kaggle is not known until someone submits."
LEADERBOARD = "https://www.kaggle.com/c/data-science-bowl-2018/leaderboard"
PAPER = "https://doi.org/10.1038/s41592-019-0612-7"


@dataclass(frozen=True)
class ReferenceScore:
    """The competition's metric of somebody else's method on IMAGES, and where that is published."""

    name: str
    score: float
    source: str
    address: str


REFERENCES = (
    ReferenceScore("winner of 2018, 32 networks", 0.6316, "Kaggle's private leaderboard", LEADERBOARD),
    ReferenceScore("CellProfiler tuned by an expert", 0.5281, "Caicedo et al., Nature Methods 2019", PAPER),
    ReferenceScore("median team", 0.443, "Kaggle's private leaderboard", LEADERBOARD),
)
"""Best first. Source: Caicedo et al., Nature Methods 16 (2019), with the organisers' archive
https://github.com/carpenterlab/2019_caicedo_dsb for the score of CellProfiler, and the
competition's leaderboard.
"""


def describe_references() -> list[str]:
    """The scores of others in words: two lines for a terminal."""
    scores = ", ".join(f"{each.name} {each.score:.3f}" for each in REFERENCES)
    return [f"For orientation, on the {IMAGES}: {scores}.", UNKNOWN]


def reference_section(submitted: bool) -> list[str]:
    """Published scores of others in Markdown; `submitted` if Kaggle has scored this project."""
    lines = ["## Scores of others", "", "On other images than the scores above."]
    lines[-1] += "" if submitted else f" {UNKNOWN}"
    lines += ["", table_line(["method", "score", "images", "source"])]
    lines.append(table_line(["---", "---:", "---", "---"]))
    lines += [
        table_line([each.name, f"{each.score:.4g}", IMAGES, f"[{each.source}]({each.address})"])
        for each in REFERENCES
    ]
    return lines
