"""HTML pages from templates, one self-contained file each; table rows in Markdown.

Nothing in a page is trusted but its own code. Values are escaped as text by Jinja or set as text
nodes by the scripts. A content security policy names the page's style and script by their hashes,
so that a browser runs no other code, loads nothing and refuses to parse a string as HTML.
"""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

SCRIPTS = ("dom.js", "charts.js", "pictures.js")
"""Scripts that every page has before its own."""


def render(template: str, script: str, data: Any, **values: Any) -> str:
    """The page of a template in `nuclei/reporting/templates`, with style, scripts and data inside.

    `script` is the page's own script. It reads `data` as JSON; `values` are those of the template.

    Raises:
        ValueError: `data` has a number that is not finite.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("nuclei.reporting"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # JSON has no NaN: a browser would refuse all of the data
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    style, code = (
        _read_template("page.css"),
        "\n".join(_read_template(name) for name in (*SCRIPTS, script)),
    )
    policy = content_security_policy(code, style)
    page = environment.get_template(template)
    return page.render(style=Markup(style), script=Markup(code), policy=policy, data=data, **values)


def content_security_policy(script: str, style: str) -> str:
    """Content security policy: one script, one style element, no network, no HTML from strings.

    Source: Content Security Policy Level 3, https://www.w3.org/TR/CSP3/, and Trusted Types.
    """
    directives = {
        "default-src": "'none'",
        "script-src": f"'sha256-{_hash(script)}'",
        "style-src": f"'sha256-{_hash(style)}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read_template(name: str) -> str:
    return (resources.files("nuclei.reporting") / "templates" / name).read_text(encoding="utf-8")


def table_line(cells: Sequence[str]) -> str:
    """One row of a table in Markdown; a | inside a cell is escaped."""
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"
