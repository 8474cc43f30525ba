"""Solutions, against which submissions are scored: the annotated nuclei of images as runs."""

from pathlib import Path
from typing import NamedTuple

from nuclei.errors import UserError
from nuclei.submission.submission import HEADER, parse_size, read_columns

SOLUTION_COLUMNS = (*HEADER, "Height", "Width")


class Solution(NamedTuple):
    """Runs of annotated nuclei and sizes (height, width) by image id, and ids of ignored images."""

    runs: dict[str, list[str]]
    sizes: dict[str, tuple[int, int]]
    others: frozenset[str] = frozenset()


def read_solution(path: Path | str, usage: str | None = None) -> Solution:
    """Annotated nuclei of a solution CSV: ImageId, EncodedPixels, Height, Width and perhaps Usage.

    With a column Usage, rows marked `Ignored` are left out, since the competition did not score
    them; `usage` keeps only rows with that mark, for example `Private` of stage 2.

    Raises:
        UserError: the table is missing, lacks columns or gives an image two sizes; no row is left.
    """
    table = read_columns(path, SOLUTION_COLUMNS)
    usages = sorted({row["Usage"] for _, row in table if "Usage" in row} - {"Ignored"})
    if usage is not None and usage not in usages:
        raise UserError(f"{path}: no row to score has the Usage {usage!r}; choose one of {usages or 'none'}")
    solution = Solution({}, {})
    others = set()
    for line, row in table:
        if row.get("Usage") == "Ignored" or (usage is not None and row["Usage"] != usage):
            others.add(row["ImageId"])
            continue
        image_id, size = row["ImageId"], parse_size(path, line, row["Height"], row["Width"])
        if solution.sizes.setdefault(image_id, size) != size:
            sizes = f"{solution.sizes[image_id]} and {size}"
            raise UserError(
                f"{path}, line {line}: image {image_id} has two sizes, {sizes}; remove the wrong one"
            )
        nuclei = solution.runs.setdefault(image_id, [])
        if row["EncodedPixels"].strip():
            nuclei.append(row["EncodedPixels"])
    if not solution.sizes:
        raise UserError(f"{path}: no image to score; every row is marked as Ignored or there is none")
    return solution._replace(others=frozenset(others))
