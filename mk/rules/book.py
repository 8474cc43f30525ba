"""The rules as they are gathered, and the files that they become.

A record is a small file of what a result was made with, such as the part of a config that training
sees. It is written again only when its content changes, so that results go stale with what was said
and not with when it was written.
"""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rules.text import path_text, shell_text

WIDTH = 110
FOLDER = Path(".rules")
STAGE_WIDTH = 9
"""Columns of a stage's name, as in the scripts' own lines of progress."""
STAGES = {
    "ensemble": "average",
    "make_submission": "segment",
    "make_weights": "pack",
    "pack_ensemble": "pack",
    "score_fold": "score",
    "score_unseen": "score",
    "select_folds": "splits",
    "tune_ensemble_weights": "tune",
}
"""What a stage is called where that is not its script's name."""
KEPT_DAYS = 7
"""Rules of settings that were not used for so long are deleted."""
CHANGED = "changed"
"""The phony target that makes a record be rewritten."""


@dataclass
class Rule:
    """Targets that one recipe makes together, from what; `after` must be there, and be it newer."""

    targets: list[str]
    needs: list[str]
    recipe: list[str]
    after: list[str] = field(default_factory=list)
    training: str = ""
    changed: bool = False
    script: str = ""

    def lines(self) -> list[str]:
        colon = " &:" if len(self.targets) > 1 else ":"
        needs = [CHANGED] if self.changed else self.needs
        after = ["|", *self.after] if self.after else []
        return [
            *wrap([_paths(self.targets) + colon, *map(path_text, [*needs, *after])], "  "),
            *self.recipe,
            "",
        ]


class Book:
    """All rules, and what the records are to say.

    `goals` are prerequisites of targets whose recipes stand in the chapters, `leads` those that
    stand there as well.
    """

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.goals: dict[str, list[str]] = {}
        self.leads: dict[str, list[str]] = {}
        self.records: dict[str, dict[str, object]] = {}
        self.chapters: dict[int, str] = {}

    def chapter(self, title: str) -> None:
        self.chapters[len(self.rules)] = title

    def add(
        self,
        targets: Sequence[str],
        needs: Iterable[str],
        *command: str,
        after: Iterable[str] = (),
        training: str = "",
        job: str = "",
    ) -> None:
        """A rule whose recipe is one script of scripts/; each part of its arguments gets a line.

        The recipe says first, in one line, what is made: `job`, or else the first target.
        """
        script, *parts = command
        stage = f"{STAGES.get(script, script):<{STAGE_WIDTH}}{job or targets[0]}"
        recipe = [
            f"\t$(say) {shell_text(stage)}",
            *wrap([f"\t$(quiet)$(python) scripts/{script}.py", *parts], "\t  "),
        ]
        self.rules.append(
            Rule(list(targets), list(needs), recipe, [*after, "$(ready)"], training, script=script)
        )

    def record(self, path: str, content: str, results: Iterable[str]) -> tuple[list[str], list[str]]:
        """A record, as the prerequisites and the order-only ones that `results` have of it.

        Results that are there without their record are from before there were records: they are
        taken for what the record says.
        """
        results = list(results)
        written = _read(path)
        adopted = written is None and any(Path(result).exists() for result in results)
        self.records[path] = {"content": content, "results": results if adopted else []}
        rule = Rule([path], [], [f"\t@$(record) {path_text(path)}"])
        rule.changed = written is not None and written != content
        self.rules.append(rule)
        return ([], [path]) if adopted else ([path], [])

    def text(self, header: list[str], hand_written: list[str]) -> str:
        """The file; `hand_written` are targets of the chapters, which make must not delete."""
        lines = [*header, "", f".PHONY: {CHANGED}", ""]
        lines += [
            line
            for name, needs in self.goals.items()
            for line in wrap([f"{name}:", *map(path_text, needs)], "  ")
        ]
        for index, rule in enumerate(self.rules):
            if index in self.chapters:
                lines += ["", f"# --- {self.chapters[index]} ---", ""]
            lines += rule.lines()
        targets = [*(target for rule in self.rules for target in rule.targets), *hand_written]
        lines += [
            "# A file is whole when it has its name: make deletes none where it is interrupted.",
            "",
        ]
        lines += [line for line in wrap([".PRECIOUS:", *map(path_text, targets)], "  ")]
        return "\n".join(lines) + "\n"


def wrap(words: Iterable[str], indent: str) -> list[str]:
    """Words in lines that end with a backslash."""
    lines, line = [], ""
    for word in words:
        if line and len(line) + len(word) + 1 > WIDTH:
            lines.append(line + " \\")
            line = indent + word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def _paths(paths: Iterable[str]) -> str:
    return " ".join(map(path_text, paths))


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None


def fail(message: str) -> list[str]:
    """A recipe that says why it cannot be followed."""
    return [f"\t@echo {shell_text(f'error: {message}')} >&2; exit 1"]


def write_files(name: str, text: str, records: dict[str, dict[str, object]]) -> Path:
    """Writes the rules and what their records say; the path of the rules."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.mk"
    _replace(path.with_suffix(".json"), json.dumps(records, indent=1, sort_keys=True))
    if _replace(path, text):
        _delete_old()
    return path


def _delete_old() -> None:
    for old in FOLDER.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another make may be at it
            if time.time() - old.stat().st_mtime > KEPT_DAYS * 86400:
                old.unlink()


def write_record(wanted: Path, path: str) -> None:
    """Writes one record if it changed; an adopted one gets a time before that of its results."""
    record = json.loads(wanted.read_text(encoding="utf-8"))[path]
    times = [Path(result).stat().st_mtime for result in record["results"] if Path(result).exists()]
    _replace(Path(path), record["content"], min(times) - 1 if times else None)


def _replace(path: Path, text: str, mtime: float | None = None) -> bool:
    """Gives the file this content where it has another one, whole at any moment; whether it had."""
    if _read(str(path)) == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        if mtime is not None:
            os.utime(temporary, (mtime, mtime))
        os.replace(temporary, path)
    except OSError as error:
        os.unlink(temporary)
        error.filename = error.filename or str(path)  # a full disk does not say which file
        raise
    return True
