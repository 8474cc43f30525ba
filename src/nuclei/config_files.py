"""Configs as TOML files: `extends`, old key names, errors that name the nearest valid key."""

import difflib
import logging
import reprlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nuclei.config import Config
from nuclei.errors import UserError

log = logging.getLogger(__name__)

RENAMED = {
    "prediction.deal": "vary_flips",
    "prediction.halve_from": "halve_scales_from",
    "training.pseudo": "pseudo_labels",
}
"""Old keys and their present names; configs, checkpoints and weights with old keys can be read."""

MAX_BYTES = 2**18
MAX_LINE = 1000
"""Larger files and longer lines (characters) are refused: a key of 100,000 parts fills the
memory."""

_warned: set[str] = set()
_SHOWN = 10
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def read_config(path: Path | str) -> Config:
    """The experiment of a TOML file; its name is the file's.

    `extends = "other.toml"` at the top, a path relative to the file, takes the settings of the
    other file as defaults, so that an ablation step holds only what it changes.

    Raises:
        UserError: a missing file or no TOML; an unknown key, wrong type or wrong choice. The error
            names the file, the dotted key, the value and the nearest valid name.
    """
    path = Path(path)
    tables = _read_chain(path)
    values: dict[str, Any] = {}
    for table in reversed(list(tables.values())):
        values = _merge(values, table)
    extended = ", ".join(str(other) for other in list(tables)[1:])
    source = f"{path} (extends {extended})" if extended else str(path)
    return parse_config({"name": path.stem, **values}, source)


def read_title(path: Path) -> str:
    """First line of a config, a comment that describes it, without the full stop."""
    with open(path, encoding="utf-8-sig") as file:
        return file.readline().strip("# \n").removesuffix(".")


def parse_config(values: dict[str, Any], source: str) -> Config:
    """The experiment of a nested table, as in a checkpoint; `source` names it in errors.

    Raises:
        UserError: as in `read_config`.
    """
    try:
        return Config.model_validate(_rename_old_keys(values, source))
    except ValidationError as error:
        faults = [_explain(source, fault) for fault in error.errors()[:_SHOWN]]
        more = error.error_count() - len(faults)
        raise UserError("\n".join(faults + [f"{source}: {more} more"] * (more > 0))) from error


def _read_chain(path: Path) -> dict[Path, dict[str, Any]]:
    """Tables by path: of a TOML file and, in order, of all files that it extends."""
    tables: dict[Path, dict[str, Any]] = {}
    while True:
        tables[path] = _read_table(path)
        extended = tables[path].pop("extends", None)
        if extended is None:
            return tables
        if not isinstance(extended, str):
            raise UserError(
                f"{path}: extends = {_shorten(extended)}; give the path of one config, relative to this file"
            )
        path = path.parent / extended
        if path.resolve() in [read.resolve() for read in tables]:
            chain = ", ".join(map(str, tables))
            raise UserError(f"{path}: configs extend each other in a circle: {chain}")


def _read_table(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path}: not valid TOML: nested too deeply") from error
    if "name" in values:
        raise UserError(f"{path}: the name is that of the file, {path.stem}; delete the key `name`")
    return values


def _read_text(path: Path) -> str:
    try:
        # utf-8-sig: editors on Windows may begin the file with a byte order mark
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        beside = sorted(other.stem for other in path.parent.glob("*.toml"))
        raise UserError(f"{path}: no such config{_nearest(path.stem, beside)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid TOML: no text in UTF-8; save it as UTF-8") from error
    if len(text) > MAX_BYTES or max(map(len, text.splitlines()), default=0) > MAX_LINE:
        limits = f"{MAX_BYTES:,} characters and {MAX_LINE:,} in a line"
        raise UserError(f"{path}: no config: it may have at most {limits}; break longer lists")
    return text


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with `changes`, key by key within their tables."""
    merged = dict(values)
    for key, change in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(change, dict):
            change = {**old, **change}
        merged[key] = change
    return merged


def _rename_old_keys(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The table with old keys under their present names."""
    renamed: dict[str, Any] = {}
    for section, table in values.items():
        is_table = isinstance(table, Mapping)
        renamed[section] = _rename_section(section, table, source) if is_table else table
    return renamed


def _rename_section(section: str, table: Mapping[str, Any], source: str) -> dict[str, Any]:
    renamed: dict[str, Any] = {}
    for key, value in table.items():
        old = f"{section}.{key}"
        new = RENAMED.get(old, key)
        if new != key and new in table:
            raise UserError(f"{source}: {old} is the old name of {section}.{new}; delete one of them")
        renamed[new] = value
        if new != key and old not in _warned:
            _warned.add(old)
            log.warning("%s: %s is now called %s.%s", source, old, section, new)
    return renamed


def _explain(source: str, fault: Any) -> str:
    """One line about an error of pydantic, with the nearest valid key or choice."""
    keys = [str(part) for part in fault["loc"]]
    dotted = ".".join(keys)
    if fault["type"] == "extra_forbidden":
        return f"{source}: unknown key {dotted[:80]}{_nearest(keys[-1], _known_keys(keys[:-1]))}"
    value = _shorten(fault["input"])
    choices = str(fault.get("ctx", {}).get("expected", ""))
    known = choices.replace(" or ", ", ").replace("'", "").split(", ")
    hint = _nearest(value.strip("'"), known) if choices else ""
    return f"{source}: {dotted} = {value}: {fault['msg']}{hint}"


def _shorten(value: Any) -> str:
    """A value of a file for an error: at most some 80 characters, whatever its size and nesting."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # an integer with too many digits for Python
        return "a number of thousands of digits"


def _known_keys(keys: list[str]) -> list[str]:
    section: Any = Config
    for key in keys:
        section = section.model_fields[key].annotation
    return [name for name in section.model_fields if name != "name"]


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word[:80], known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(known)}"
