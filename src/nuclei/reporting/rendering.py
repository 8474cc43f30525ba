"""Pages for a browser, one file each that needs no network, from the templates of this package; rows in Markdown."""

from collections.abc import Sequence
from typing import Any


def render(template: str, **values: Any) -> str:
    """The page of a template of `nuclei/reporting/templates` with its styles, scripts and data inside."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("nuclei.reporting"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def table_line(cells: Sequence[str]) -> str:
    """One row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"
