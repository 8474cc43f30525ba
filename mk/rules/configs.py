"""Configs: a TOML file with all that it extends, and what training and prediction see of it.

`nuclei.config_files` reads them too, with pydantic's checks; a test holds that both come to the
same values.
"""

import json
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rules.text import RefusedError, check_name, nearest

Table = dict[str, Any]

RENAMED = {
    "prediction.deal": "vary_flips",
    "prediction.halve_from": "halve_scales_from",
    "training.pseudo": "pseudo_labels",
}
"""Keys of earlier versions and their names of today, so that a renamed key makes nothing stale."""
WEIGHTLESS = (
    ("prediction", None),
    ("training", "validate_every"),
    ("training", "validation_images"),
)
"""Sections, and keys of sections, that do not change the trained weights."""


@dataclass(frozen=True)
class Experiment:
    """A config with what it extends; `changed`: sections of its own; `fault`: what is wrong."""

    name: str
    path: Path
    values: Table = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    extends: str = ""
    fault: str = ""

    @property
    def start(self) -> str:
        """The experiment whose weights are fine-tuned, or nothing."""
        return str(self.values.get("training", {}).get("start", ""))

    @property
    def pseudo(self) -> str:
        """The experiment that makes the pseudo-labels, or nothing."""
        return str(self.values.get("training", {}).get("pseudo_labels", ""))

    @property
    def external(self) -> bool:
        """Whether external data sets are trained on too."""
        return bool(self.values.get("training", {}).get("external"))

    def training(self) -> str:
        """All that changes the weights, as canonical JSON (no comments, order or [prediction])."""
        values = {section: table for section, table in self.values.items() if (section, None) not in WEIGHTLESS}
        for section, table in values.items():
            if isinstance(table, dict):
                values[section] = {
                    key: value for key, value in table.items() if (section, key) not in WEIGHTLESS
                }
        return canonical(values)

    def prediction(self) -> str:
        """What prediction sees beside the checkpoint, as canonical JSON."""
        return canonical(self.values.get("prediction", {}))


def read_experiments(folder: Path) -> dict[str, Experiment]:
    """The configs of a folder by name; a mistake is kept as `fault` until the config is used."""
    paths = sorted(path for path in folder.glob("*.toml") if not path.name.startswith("."))
    found: dict[str, Experiment] = {}
    folded: dict[str, str] = {}
    for path in paths:
        name = check_name(str(folder), path.stem)
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise RefusedError(
                f"{folder}: {other} and {name} would have one folder on some systems; rename one"
            )
        try:
            found[name] = read_experiment(path)
        except RefusedError as refused:
            found[name] = Experiment(name, path, fault=str(refused))
    return found


def read_experiment(path: Path) -> Experiment:
    """A config with all that it extends.

    Raises:
        RefusedError: as in `read_chain`; `training` is no section.
    """
    chain = read_chain(path)
    own = read_table(path)
    values = merge(chain)
    if not isinstance(values.get("training", {}), dict):
        raise RefusedError(f"{path}: training = {values['training']!r:.60}; expected a section [training]")
    return Experiment(
        path.stem,
        path,
        values,
        tuple(key for key in own if key != "extends"),
        extended(path, own),
    )


def read_chain(path: Path) -> list[Table]:
    """The tables of a TOML file, of the one that it extends, and so on.

    Raises:
        RefusedError: a file that is missing or no TOML; configs that extend each other.
    """
    tables, seen = [], [path]
    while True:
        table = read_table(path)
        other = extended(path, table)
        tables.append({key: value for key, value in table.items() if key != "extends"})
        if not other:
            return tables
        path = path.parent / other
        if path.resolve() in [one.resolve() for one in seen]:
            raise RefusedError(f"{path}: configs extend each other in a circle: {' '.join(map(str, seen))}")
        seen.append(path)


def extended(path: Path, table: Table) -> str:
    other = table.get("extends", "")
    if not isinstance(other, str):
        raise RefusedError(f"{path}: extends = {other!r}; give the path of one config, relative to this one")
    return other


def merge(chain: list[Table]) -> Table:
    """What the first of the tables says of each key of each section, else the next."""
    values: Table = {}
    for table in reversed(chain):
        for key, value in table.items():
            both = isinstance(value, dict) and isinstance(values.get(key), dict)
            values[key] = {**values[key], **value} if both else value
    return {section: _rename_keys(section, table) for section, table in values.items()}


def _rename_keys(section: str, table: Any) -> Any:
    if not isinstance(table, dict):
        return table
    return {RENAMED.get(f"{section}.{key}", key): value for key, value in table.items()}


@cache
def read_table(path: Path) -> Table:
    """A TOML file, read once; not to be changed.

    Raises:
        RefusedError: it is missing or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        beside = [other.name for other in path.parent.glob("*.toml")]
        raise RefusedError(f"{path}: no such config{nearest(path.name, beside)}") from error
    except (ValueError, RecursionError, OSError) as error:
        raise RefusedError(f"{path}: not valid TOML: {error}") from error


def canonical(values: Any) -> str:
    """JSON that is the same for the same values: sorted, without empty sections, 1.0 as 1."""
    return json.dumps(_plain(values), sort_keys=True, indent=1, default=str) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if one != {}}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
