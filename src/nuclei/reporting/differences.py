"""Paired differences as a reader meets them: verdicts on their intervals, and their text."""

import math
from collections.abc import Mapping
from typing import Any

BEST, WORSE, NOISE = "best", "worse", "noise"
DASH = "-"
"""Cell of a table where nothing was measured."""


def judge(low: float, high: float) -> str:
    """Verdict on a difference to the best: noise where its interval contains 0."""
    return NOISE if low <= 0 <= high else WORSE


def known(value: Any) -> bool:
    """Whether a cell of a table has a value."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def format_difference(difference: float, low: float, high: float) -> str:
    """`+0.028 (+0.015 to +0.041)`, empty where there is none."""
    return f"{difference:+.3f} ({low:+.3f} to {high:+.3f})" if known(difference) else ""


def format_interval(low: Any, high: Any) -> str:
    """` (0.512 to 0.720)`, to be put behind a score; empty where there is none."""
    return f" ({low:.3f} to {high:.3f})" if known(low) else ""


def format_behind(row: Mapping[str, Any], prefix: str = "") -> str:
    """The cells `behind`, `behind_low`, `behind_high` and `verdict`, each with a prefix, as one."""
    verdict, behind = row[f"{prefix}verdict"], row.get(f"{prefix}behind")
    if verdict == BEST:
        return BEST
    if not known(behind):
        return ""
    noise = f", {NOISE}" if verdict == NOISE else ""
    return f"{behind:.4f} ({row[f'{prefix}behind_low']:.4f} to {row[f'{prefix}behind_high']:.4f}){noise}"
