"""The results page: one HTML file with pictures, outlines and measurements that needs no network and no server."""

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from nuclei.io.files import atomic_path
from nuclei.segmentation.preview import Preview
from nuclei.segmentation.results import SummaryRow

_PICTURES = 100_000_000
"""Characters of pictures on the page; beyond it planes are shown by their small picture, to open in
a browser."""


def write_page(out: Path, rows: Sequence[SummaryRow]) -> None:
    """Writes `<out>/index.html` of the planes whose `page/*.json` lie there; one plane at a time is in memory."""
    shown = [row for row in rows if row.image and (out / "page" / f"{row.image}.json").is_file()]
    others = [row for row in rows if row.status != "done"]
    style, script = _read_template("results.css"), _read_template("results.js")
    page = Template(_read_template("results.html")).substitute(
        style=style, script=script, style_hash=_hash(style), script_hash=_hash(script), data="\0"
    )
    before, _, after = page.partition("\0")
    with (
        atomic_path(out / "index.html") as temporary,
        open(temporary, "w", encoding="utf-8") as file,
    ):
        file.write(before)
        entries = []
        for row, plane in _read_planes(out, shown):
            entries.append(
                {
                    "image": row.image,
                    "nuclei": row.nuclei,
                    "notes": row.notes,
                    "thumbnail": plane.thumbnail,
                }
            )
            block = plane.model_dump(mode="json", exclude={"thumbnail"})
            file.write(f'<script type="application/json" class="plane">{_embed(block)}</script>\n')
        summary = {
            "planes": entries,
            "counts": describe_counts(rows),
            "others": [{"file": row.file, "status": row.status, "notes": row.notes} for row in others],
        }
        file.write(f'<script type="application/json" id="summary">{_embed(summary)}</script>\n')
        file.write(after)


def describe_counts(rows: Sequence[SummaryRow]) -> str:
    """The numbers of planes and nuclei, and of files that gave none."""
    planes = [row for row in rows if row.image]
    parts = [f"{sum(row.nuclei or 0 for row in planes)} nuclei in {len(planes)} planes"]
    left_out = sum(row.left_out or 0 for row in planes)
    if left_out:
        parts.append(f"{left_out} objects left out by size or shape")
    for status in ("earlier", "failed", "left aside"):
        count = sum(row.status == status for row in rows)
        if count:
            parts.append(f"{count} {status}")
    return ", ".join(parts)


def _read_planes(out: Path, rows: Sequence[SummaryRow]) -> Iterator[tuple[SummaryRow, Preview]]:
    """The planes in their order, with small pictures once the page has enough of large ones."""
    used = 0
    for row in rows:
        plane = Preview.model_validate_json((out / "page" / f"{row.image}.json").read_bytes())
        used += len(plane.picture)
        yield (
            row,
            plane if used <= _PICTURES else plane.model_copy(update={"picture": plane.thumbnail}),
        )


def _read_template(name: str) -> str:
    return (files("nuclei.segmentation") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _embed(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
