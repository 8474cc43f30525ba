import numpy as np
import pandas as pd

from nuclei.reporting.terminal import format_leaderboard

LONG = "a_name_that_is_much_longer_than_the_column"
NONE = {name: np.nan for name in ("behind", "behind_low", "behind_high")}


def row(experiment, score, verdict, low=0.1, high=0.9, unseen=np.nan, behind=NONE):
    return {"experiment": experiment, "score": score, "low": low, "high": high, "verdict": verdict} | {
        "unseen": unseen,
        **behind,
    }


def behind(*values):
    return dict(zip(NONE, values, strict=True))


def test_the_leaderboard_fits_80_columns_and_sets_what_cannot_be_compared_apart():
    frame = pd.DataFrame(
        [
            row("best_of_all", 0.71, "best", unseen=0.5, behind=behind(0.0, 0.0, 0.0)),
            row(LONG, 0.7, "noise", behind=behind(-0.123, -0.2, 0.1)),
            row("worse", 0.5, "worse", behind=behind(0.21, 0.1, 0.3)),
            row("elsewhere", 0.6, "other images", np.nan, np.nan),
            row("held_out", np.nan, "only unseen sources", np.nan, np.nan, 0.4),
        ]
    )
    lines = format_leaderboard(frame).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["best_of_all", "0.7100", "0.100-0.900", "0.5000", "best"]
    assert lines[2].endswith("-0.123 (-0.200 to 0.100) noise")
    assert lines[3].endswith("0.210 (0.100 to 0.300)")
    assert lines[5].split() == ["elsewhere", "0.6000", "-"]
    assert lines[7].split() == ["held_out", "-", "0.4000"]


def test_a_leaderboard_without_unseen_sources_is_printed_too():
    frame = pd.DataFrame([row("only", 0.71, "best", behind=behind(0.0, 0.0, 0.0))]).drop(columns="unseen")
    assert format_leaderboard(frame).splitlines()[1].split()[-2:] == ["-", "best"]
