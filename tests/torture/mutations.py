"""Broken variants of a good file, the same ones for the same seed."""

import json
import random
import re
from typing import Any

TOKENS = [
    b"", b" ", b"\n", b"\r", b"\0", b",", b'"', b"\xef\xbb\xbf", b"\xff\xfe", b"-1", b"0", b"1e400", b"nan", b"inf",
    b"null", b"true", b"[", b"{", b"]", b"}", b"=", b"=1+1", b"../../x", b"a\"><img src=x>", b"`touch x`", b"\x1b[2J",
    b"9" * 30, b"9" * 5000, b"18446744073709551616", "\u0663".encode(), "\u202e".encode(), b"[" * 5000,
    b'{"a":' * 2000, b"a" * 70_000, b"1 " * 5000,
]  # fmt: skip
"""Hard cases of parsers: line ends, quotes, byte order marks, endless numbers, nesting."""


def mutate(content: bytes, chance: random.Random) -> bytes:
    """The content after one to four changes."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        content = chance.choice(CHANGES)(content, chance)
    return content


def flip(content: bytes, chance: random.Random) -> bytes:
    place = place_in(content, chance)
    return content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :]


def insert(content: bytes, chance: random.Random) -> bytes:
    place = place_in(content, chance)
    return content[:place] + chance.choice(TOKENS) + content[place:]


def replace_number(content: bytes, chance: random.Random) -> bytes:
    """Another value for a number, or for a word where the place has none."""
    start = place_in(content, chance)
    while start < len(content) and not content[start : start + 1].isalnum():
        start += 1
    end = start
    while end < len(content) and content[end : end + 1].isalnum():
        end += 1
    return content[:start] + chance.choice(TOKENS) + content[end:]


def delete(content: bytes, chance: random.Random) -> bytes:
    place = place_in(content, chance)
    return content[:place] + content[place + chance.choice((1, 2, 8, 100)) :]


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: place_in(content, chance)]


def repeat(content: bytes, chance: random.Random) -> bytes:
    place, length = place_in(content, chance), chance.choice((1, 20, 200))
    return (
        content[:place] + content[place : place + length] * chance.choice((2, 50)) + content[place + length :]
    )


def swap_lines(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    chance.shuffle(lines)
    return b"".join(lines)


def retype(content: bytes, chance: random.Random) -> bytes:
    """Another type of value: in a JSON, a section or key of a TOML, a cell of a table."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return retype_text(content, chance)
    return json.dumps(retype_part(values, chance)).encode()


def retype_part(values: Any, chance: random.Random) -> Any:
    """Goes down into a random part of the value, and puts another one there."""
    keys = (
        list(values)
        if isinstance(values, dict)
        else list(range(len(values)))
        if isinstance(values, list)
        else []
    )
    if not keys or chance.random() < 0.15:
        return chance.choice(VALUES)
    key = chance.choice(keys)
    if isinstance(values, dict) and chance.random() < 0.1:
        return {("b" if name == key else name): value for name, value in values.items()}
    values[key] = retype_part(values[key], chance)
    return values


def retype_text(content: bytes, chance: random.Random) -> bytes:
    value = chance.choice(TEXTS)
    sections = list(re.finditer(rb"^\[(\w+)\]|^(\w+) *=.*", content, re.MULTILINE))
    cells = sections or list(re.finditer(rb"[^,\n]+", content))
    if not cells:
        return content
    found = chance.choice(cells)
    new = (found[1] or found[2]) + b" = " + value if sections else value
    return content[: found.start()] + new + content[found.end() :]


VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    0.5,
    1e300,
    10**30,
    "",
    "a",
    "0",
    "\ud800",
    [],
    {},
    [[]],
    {"a": 1},
    ["a", "a"],
]
TEXTS = [b"3", b'"x"', b"[]", b"{}", b"nan", b"-1", b"true", b"[[1]]", b"1e300", b"9" * 30, b"''", b'["a", 1]']


CHANGES = (retype, retype, flip, insert, replace_number, replace_number, delete, cut, repeat, swap_lines)


def place_in(content: bytes, chance: random.Random) -> int:
    return chance.randrange(len(content) + 1)
