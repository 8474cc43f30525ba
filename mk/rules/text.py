"""Names, paths and values as make and the shell read them: checks and quoting."""

import difflib
import re
import shlex
from collections.abc import Iterable

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""An experiment, a member of an ensemble, a file of weights: data that comes from files of
others."""
FOLDER = re.compile(r"[\w.,+@/][\w.,+@/ -]*")
"""A path that becomes a target of make: spaces can be escaped there, quotes and the like cannot."""


class RefusedError(Exception):
    """An error that a user can fix, in one line."""


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`; did you mean ...?`, or a list of what is known where nothing is near."""
    known = sorted(set(known))
    close = difflib.get_close_matches(word, known, n=1, cutoff=cutoff)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are: {' '.join(known)}" if known else ""


def check_name(what: str, name: str) -> str:
    """The name itself.

    Raises: RefusedError: it holds anything but letters, digits, `_`, `-` and `.`, or begins with
        one of the last three.
    """
    if not NAME.fullmatch(name):
        raise RefusedError(
            f"{what}: {name[:60]!r} is no name; letters, digits and _ - . are allowed, the first no sign"
        )
    return name


def check_folder(what: str, path: str) -> str:
    """The path itself, less a slash at its end.

    Raises:
        RefusedError: it holds what a target of make cannot.
    """
    if not FOLDER.fullmatch(path):
        raise RefusedError(
            f"{what}={path}: make keeps files here; letters, digits, spaces and . _ - + , @ / are allowed"
        )
    return path.rstrip("/") or "/"


def path_text(path: str) -> str:
    """A checked path as make target or shell argument: both escape a space in the same way."""
    return path.replace(" ", "\\ ")


def shell_text(value: str) -> str:
    """Any value as one word of a recipe: quoted where the shell needs it, a $ doubled for make."""
    return shlex.quote(value).replace("$", "$$")


def variable_text(value: str) -> str:
    """Any value as one word of the shell, on the right of `:=`: there a # would begin a comment."""
    return shell_text(value).replace("#", "$(hash)")
