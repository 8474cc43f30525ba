"""JSON that is read into frozen pydantic models, with one-line errors."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from nuclei.errors import UserError

log = logging.getLogger(__name__)

MAX_BYTES = 100_000_000
"""Larger JSON files are refused before they are read."""

_warned: set[tuple[str, ...]] = set()


class Record(BaseModel):
    """Base of results that travel between stages: frozen, finite numbers, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Model = TypeVar("Model", bound=BaseModel)


def read_record(path: Path | str, model: type[Model], remedy: str) -> Model:
    """The content of a JSON file as a `model`; `remedy` says how a good file is made.

    Raises:
        UserError: the file is missing, too large, no JSON, or not of this model.
    """
    return validate_record(read_values(path, remedy), model, str(path), remedy)


def read_values(path: Path | str, remedy: str) -> Any:
    """The value of a JSON file. Raises as `read_record`."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; {remedy}")
    size = Path(path).stat().st_size
    if size > MAX_BYTES:
        raise UserError(f"{path}: {size} bytes, expected at most {MAX_BYTES}; {remedy}")
    return parse_json(Path(path).read_bytes(), str(path), remedy)


def parse_json(content: bytes | str, source: str, remedy: str) -> Any:
    """The value of a JSON text with finite numbers, nested at most 200 deep.

    Raises:
        UserError: anything else; nesting is refused before it can exhaust the stack.
    """
    try:
        return from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise UserError(f"{source}: not valid JSON ({error}); {remedy}") from error


def validate_record(values: Any, model: type[Model], source: str, remedy: str) -> Model:
    """Parsed JSON as a `model`. Raises as `read_record`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{source}: {describe_fault(error)}; {remedy}") from error


def describe_fault(error: ValidationError) -> str:
    """The first fault of a validation in one line: dotted key, value received, what is wrong."""
    first, *others = error.errors(include_url=False)
    key = ".".join(str(part)[:40] for part in first["loc"])
    message = " ".join(first["msg"].removeprefix("Value error, ").split())[:300]
    received = "" if first["type"] in ("missing", "value_error") else f" = {_shorten(first['input'])}"
    more = f" (and {len(others)} more)" if others else ""
    return f"{key}{received}: {message}{more}" if key else f"{message}{more}"


def rename_keys(values: Mapping[str, Any], renamed: Mapping[str, str], what: str) -> dict[str, Any]:
    """A table whose keys of earlier versions are replaced by their names of today; warns once.

    `renamed` maps old names to new ones, `what` names the kind of table in the warning.

    Raises:
        UserError: a value is given under both of its names.
    """
    old = [key for key in values if key in renamed]
    for key in old:
        if renamed[key] in values:
            raise UserError(f"{what}: {key} is the old name of {renamed[key]}; delete one of them")
    if old and (what, *old) not in _warned:
        _warned.add((what, *old))
        names = ", ".join(f"{key} is now {renamed[key]}" for key in old)
        log.warning("%s: old names: %s", what, names)
    return {renamed.get(key, key): value for key, value in values.items()}


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
