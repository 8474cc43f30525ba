"""CSV tables that a person opens in a spreadsheet, where a text must not become a formula."""

from pathlib import Path
from typing import Any

from nuclei.io.files import write_csv

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that Excel, LibreOffice and Google Sheets may read as a formula.

Source: OWASP, CSV Injection.
"""


def write_spreadsheet(path: Path | str, frame: Any) -> None:
    """Writes a pandas.DataFrame without its index; a text that could be a formula gets an apostrophe before it.

    Numbers stay numbers. A table that another program reads by its ids belongs in `write_csv`.
    """
    texts = frame.select_dtypes(exclude="number").columns
    safe = frame.assign(**{name: frame[name].map(neutralise_formula) for name in texts})
    write_csv(path, safe.rename(columns=neutralise_formula))


def neutralise_formula(cell: Any) -> Any:
    """A cell as it is, or with an apostrophe before a text that begins like a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell
