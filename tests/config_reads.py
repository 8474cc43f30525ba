"""Which settings the source code reads: attributes of a Config's sections, in the syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

from nuclei import config
from nuclei.config import Config, Section

SECTIONS = {name: field.annotation for name, field in Config.model_fields.items() if name != "name"}
TYPES = {
    name: kind for name, kind in vars(config).items() if isinstance(kind, type) and issubclass(kind, Section)
}

Known = dict[str, type[Section]]
"""Types of variables and, with a leading `self.`, of the attributes of a class."""


def settings_read(path: Path) -> set[tuple[str, str]]:
    """(section, key) of each setting that a file reads."""
    tree = ast.parse(path.read_text())
    reads = set(_reads(tree.body, {}))
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for node in classes:
        fields: Known = {}
        for _ in range(2):  # an attribute may be set in a method below its first use
            for function in _functions(node):
                known = dict(fields)
                reads |= set(_reads([function], known))
                fields |= {name: kind for name, kind in known.items() if name.startswith("self.")}
            fields |= _annotated_fields(node)
    return {(section, key) for section, key in reads if section}


def _functions(node: ast.AST) -> list[ast.FunctionDef]:
    return [inner for inner in ast.walk(node) if isinstance(inner, ast.FunctionDef)]


def _annotated_fields(node: ast.ClassDef) -> Known:
    fields = [inner for inner in node.body if isinstance(inner, ast.AnnAssign)]
    found = {f"self.{field.target.id}": _annotation(field.annotation) for field in fields}
    return {name: kind for name, kind in found.items() if kind}


def _annotation(node: ast.expr | None) -> type[Section] | None:
    return TYPES.get(node.id) if isinstance(node, ast.Name) else None


def _reads(body: list[ast.stmt], known: Known) -> Iterator[tuple[str, str]]:
    """Reads in the order of the code; adds to `known` the types of what is assigned on the way."""
    for statement in body:
        scope = known
        if isinstance(statement, ast.FunctionDef):
            for argument in [*statement.args.args, *statement.args.kwonlyargs]:
                known.pop(argument.arg, None)
                if kind := _annotation(argument.annotation):
                    known[argument.arg] = kind
        for node in ast.walk(statement):
            if isinstance(node, ast.Assign):
                _assign(node.targets[0], node.value, scope)
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute) and (kind := _type_of(node.value, scope)):
                section = next((name for name, other in SECTIONS.items() if other is kind), "")
                yield section, node.attr
            if isinstance(node, ast.FunctionDef) and node is not statement:
                yield from _reads([node], dict(scope))


def _assign(target: ast.expr, value: ast.expr, known: Known) -> None:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, other in zip(target.elts, value.elts, strict=True):
            _assign(one, other, known)
    elif kind := _type_of(value, known):
        known[ast.unparse(target)] = kind


def _type_of(node: ast.expr, known: Known) -> type[Section] | None:
    """Section that an expression is, if any: by its annotation, or as `<a config>.<section>`."""
    if kind := known.get(ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""):
        return kind
    if isinstance(node, ast.Attribute) and node.attr in SECTIONS and _type_of(node.value, known) is Config:
        return SECTIONS[node.attr]
    if isinstance(node, ast.Attribute) and node.attr == "config":  # as in network.config, checkpoint.config
        return Config
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("read_config", "parse_config")
    ):
        return Config
    return None
