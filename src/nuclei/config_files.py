"""An experiment as a file says it: TOML, what it extends, and errors that name the key and the nearest valid one."""

import difflib
import logging
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
"""Keys of earlier versions and their names of today; configs, checkpoints and weights with the old ones are read."""
_warned: set[str] = set()


def read_config(path: Path | str) -> Config:
    """The experiment of a TOML file, under the file's name.

    `extends = "other.toml"` at the top, a path relative to the file, takes what the other file says wherever this one
    says nothing: the variants of a comparison differ from their common ground in the lines that they hold.

    Raises:
        UserError: the file is missing or no TOML; an unknown key, wrong type or wrong choice, with the file, the
            dotted key, the value received and the nearest valid name.
    """
    path = Path(path)
    tables = _read_chain(path)
    values: dict[str, Any] = {}
    for table in reversed(list(tables.values())):
        for key, given in table.items():
            both_tables = isinstance(given, dict) and isinstance(values.get(key), dict)
            values[key] = {**values[key], **given} if both_tables else given
    extended = ", ".join(str(other) for other in list(tables)[1:])
    return parse_config({"name": path.stem, **values}, f"{path} (extends {extended})" if extended else str(path))


def read_title(path: Path) -> str:
    """What the first line of a config, a comment, says of it."""
    with open(path, encoding="utf-8") as file:
        return file.readline().strip("# \n").removesuffix(".")


def _read_chain(path: Path) -> dict[Path, dict[str, Any]]:
    """The tables of a TOML file, of the one that it extends, of the one that this extends ..., by path."""
    tables: dict[Path, dict[str, Any]] = {}
    while True:
        tables[path] = _read_table(path)
        extended = tables[path].pop("extends", None)
        if extended is None:
            return tables
        if not isinstance(extended, str):
            raise UserError(f"{path}: extends = {extended!r}; give the path of one config, relative to this one")
        path = path.parent / extended
        if path.resolve() in [read.resolve() for read in tables]:
            raise UserError(f"{path}: configs extend each other in a circle: {', '.join(map(str, tables))}")


def _read_table(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        beside = sorted(other.stem for other in path.parent.glob("*.toml"))
        raise UserError(f"{path}: no such config{_nearest(path.stem, beside)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from error
    if "name" in values:
        raise UserError(f"{path}: `name` is the file's own name, {path.stem}; delete the key")
    return values


def parse_config(values: dict[str, Any], source: str) -> Config:
    """The experiment of a nested table, as a checkpoint carries it; `source` names it in errors.

    Raises:
        UserError: as in `read_config`.
    """
    try:
        return Config.model_validate(_rename_old_keys(values, source))
    except ValidationError as error:
        raise UserError("\n".join(_explain(source, fault) for fault in error.errors())) from error


def _rename_old_keys(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The table with keys of earlier versions under their new names; warns once of each."""
    renamed: dict[str, Any] = {}
    for section, table in values.items():
        if not isinstance(table, Mapping):
            renamed[section] = table
            continue
        renamed[section] = {}
        for key, value in table.items():
            old = f"{section}.{key}"
            new = RENAMED.get(old, key)
            if new in renamed[section] or (new != key and new in table):
                raise UserError(f"{source}: {old} is the old name of {section}.{new}; delete one of them")
            renamed[section][new] = value
            if new != key and old not in _warned:
                _warned.add(old)
                log.warning("%s: %s is now called %s.%s", source, old, section, new)
    return renamed


def _explain(source: str, fault: Any) -> str:
    keys = [str(part) for part in fault["loc"]]
    dotted = ".".join(keys)
    if fault["type"] == "extra_forbidden":
        return f"{source}: unknown key {dotted}{_nearest(keys[-1], _known_keys(keys[:-1]))}"
    choices = str(fault.get("ctx", {}).get("expected", ""))
    hint = _nearest(str(fault["input"]), choices.replace(" or ", ", ").replace("'", "").split(", ")) if choices else ""
    return f"{source}: {dotted} = {fault['input']!r}: {fault['msg']}{hint}"


def _known_keys(keys: list[str]) -> list[str]:
    section: Any = Config
    for key in keys:
        section = section.model_fields[key].annotation
    return [name for name in section.model_fields if name != "name"]


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(known)}"
