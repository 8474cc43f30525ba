"""results.json, what was measured and by which run, and RESULTS.md, which shows it.

A run of some sections replaces those alone. Each section keeps its run (date, commit, images,
machine), since the others may be older.
"""

from pathlib import Path
from typing import Any

import trials
from harness import Row

from nuclei.io.files import read_json, write_json, write_text

SECTIONS = (
    "segment", "metric", "run_lengths", "postprocessing", "opening", "crops", "training", "prediction", "tuning"
)  # fmt: skip
START_UP = "start_up"
WHOLE = ("search", "large", "plane")
"""Whole runs: wall-clock seconds and, where measured, the peak memory of the process."""
ON_DEVICE = ("training", "prediction")
"""Sections that are measured on a GPU as well as on the processor."""
DEVICE = "device"
"""Images a second on a GPU, and how much of it that is."""
GROWTH = "growth"
"""How stages grow with the number of images."""
HEAD = """# Speed against other libraries

Written by `make bench`. Our code and the other one run in turns on the same work. The ratio is their time divided by
ours, above 1 where ours is faster: the median over the pairs, then the smallest and the largest. Both results are
compared before the time is measured; *same result* says how far they agree. Memory is the largest growth of the
process. Ratios depend on the sample of images. A target is the ratio or time that was set as the goal.

`make bench ROWS='metric crops'` measures some sections again and keeps the others; the last column is the run, listed
at the end.
"""
TABLE = [
    "| work | other code | ours | theirs | ratio | target | MiB, ours / theirs | same result | run |",
    "|---|---|---|---|---|---|---|---|---|",
]

Section = dict[str, Any]
"""`run` in words and `rows`."""


def section_key(name: str, device: str) -> str:
    """Under which results.json has a section: on a GPU it stands beside that of the processor."""
    return f"{name} {device}" if name in ON_DEVICE and device != "cpu" else name


def plain(row: Row) -> dict[str, Any]:
    """A row as results.json keeps it: the spread of the ratios in place of each of them."""
    kept = {name: value for name, value in vars(row).items() if name != "ratios"}
    return kept | {
        "ratio": row.ratio,
        "least": min(row.ratios),
        "most": max(row.ratios),
        "pairs": len(row.ratios),
    }


def update(folder: Path, name: str, run: str, rows: list[dict[str, Any]]) -> None:
    """Replaces a section of `<folder>/results.json` and writes `<folder>/RESULTS.md` anew."""
    path = folder / "results.json"
    sections: dict[str, Section] = read_json(path) if path.is_file() else {}
    sections[name] = {"run": run, "rows": rows}
    write_json(path, sections)
    write_text(folder / "RESULTS.md", page(sections))


def page(sections: dict[str, Section]) -> str:
    """RESULTS.md: comparisons with peers, start of the scripts, trials, and the runs by number."""
    runs = sorted({section["run"] for section in sections.values()})
    numbers = {name: runs.index(section["run"]) + 1 for name, section in sections.items()}

    def table(names: tuple[str, ...]) -> list[str]:
        found = [section_key(name, device) for name in names for device in ("cpu", "cuda")]
        keys = [key for key in dict.fromkeys(found) if key in sections]
        return TABLE + [_line(row, numbers[key]) for key in keys for row in sections[key]["rows"]]

    lines = [HEAD, *table(SECTIONS), ""]
    if START_UP in sections:
        lines += ["| start-up, shortest of three | CPU time | target | run |", "|---|---|---|---|"]
        lines += [_start(row, numbers[START_UP]) for row in sections[START_UP]["rows"]]
    names = [name for name in WHOLE if name in sections]
    whole = [_whole(row, numbers[name]) for name in names for row in sections[name]["rows"]]
    if whole:
        lines += [
            "",
            "| whole run | wall time | target | peak MiB | target | run |",
            "|---|---|---|---|---|---|",
            *whole,
        ]
    if DEVICE in sections:
        lines += _device(sections[DEVICE]["rows"], numbers[DEVICE])
    if GROWTH in sections:
        lines += _growth(sections[GROWTH]["rows"], numbers[GROWTH])
    lines += ["", trials.HEAD, *table(tuple(trials.TRIALS)), "", trials.NOTES, "## Runs", ""]
    return "\n".join([*lines, *(f"{number}. {run}" for number, run in enumerate(runs, 1))]) + "\n"


def _line(row: dict[str, Any], run: int) -> str:
    spread = f"{row['least']:.2f} to {row['most']:.2f}, {row['pairs']} pairs"
    ratio = f"**{row['ratio']:.2f}** ({spread})"
    bar = "" if row["bar"] is None else f"{row['bar']:g}: {_verdict(row['ratio'] >= row['bar'])}"
    times = [f"{_time(row[name])} {row['clock']}" for name in ("ours_seconds", "peer_seconds")]
    memory = f"{row['ours_memory']:.0f} / {row['peer_memory']:.0f}"
    cells = [row["name"], row["peer"], *times, ratio, bar, memory, row["equal"], str(run)]
    return f"| {' | '.join(cells)} |"


def _start(row: dict[str, Any], run: int) -> str:
    bar = "" if row["bar"] is None else f"{row['bar']:g} s: {_verdict(row['seconds'] <= row['bar'])}"
    return f"| {row['name']} | {row['seconds']:.2f} s | {bar} | {run} |"


def _whole(row: dict[str, Any], run: int) -> str:
    bar = "" if row["bar"] is None else f"{row['bar']:g} s: {_verdict(row['seconds'] <= row['bar'])}"
    memory = "" if row["mib"] is None else f"{row['mib']:.0f}"
    limit = "" if row["mib_bar"] is None else f"{row['mib_bar']:g}: {_verdict(row['mib'] <= row['mib_bar'])}"
    return f"| {row['name']} | {row['seconds']:.0f} s | {bar} | {memory} | {limit} | {run} |"


def _device(rows: list[dict[str, Any]], run: int) -> list[str]:
    """Training on a GPU: the table, with what an image costs above it."""
    giga = rows[0]["operations"] / 1e9
    lines = [
        "",
        f"The UNet of width 32 at 256x256 in training on a GPU: {giga:.2f} billion multiply-adds an image forward, "
        "three times as many with the backward pass. The peak is that of a bfloat16 matrix product in the same run.",
        "",
        "| epochs of `train_epoch` | images/s | fraction of the peak | target | ratio | target | peak MiB | run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        share_bar, bar, ratio = row.get("share_bar"), row.get("bar"), row.get("ratio")
        first = "" if share_bar is None else f"{share_bar:.0%}: {_verdict(row['share'] >= share_bar)}"
        times = "" if ratio is None else f"{ratio:.2f} of {row['against']}"
        second = "" if bar is None else f"{bar:g}: {_verdict(ratio <= bar)}"
        cells = [
            row["name"],
            f"{row['speed']:,.0f}",
            "" if row["share"] is None else f"{row['share']:.1%}",
            first,
            times,
            second,
            f"{row['mib']:,.0f}",
        ]
        lines.append(f"| {' | '.join([*cells, str(run)])} |")
    return lines


def _growth(rows: list[dict[str, Any]], run: int) -> list[str]:
    counts = [f"{count:,}" for count in rows[0]["images"]]
    cells = [
        "stage",
        *(f"{count} images" for count in counts),
        "power",
        f"peak MiB, {' / '.join(counts)}",
        "run",
    ]
    lines = [
        "",
        "Growth with the number of images: the scripts on generated images of 64 x 64 pixels, a tiny network, one",
        "thread. The power is that of the number of images with which seconds grow between the last two columns,",
        "without those of the first; it is 1 where growth is linear.",
        "",
        "![processor seconds and memory over the number of images](growth.svg)",
        "",
        f"| {' | '.join(cells)} |",
        "|---" * len(cells) + "|",
    ]
    for row in rows:
        seconds = [f"{value:.1f} s CPU" for value in row["seconds"]]
        mib = " / ".join(f"{value:.0f}" for value in row["mib"])
        cells = [row["name"], *seconds, format(row["power"], ".2f"), mib, str(run)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _verdict(met: bool) -> str:
    return "met" if met else "missed"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.2f} ms"
