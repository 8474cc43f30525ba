"""Names that files carry: experiments, ensemble members, files of weights.

A name from a file is data of unknown origin that ends up in paths, commands and pages, so it is
checked where it is read.
"""

import re
from typing import Annotated

from pydantic import AfterValidator

from nuclei.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", re.ASCII)


def check_name(name: str) -> str:
    """The name itself, if it is a safe name.

    Raises:
        UserError: the name is empty, longer than 100 characters, begins with `-` or `.`, or has
            characters other than letters, digits, `_`, `-` and `.`.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name[:40]!r} is not a valid name; use at most 100 letters, digits, '_', '-' and '.', "
            "and begin with none of '-' and '.'"
        )
    return name


Name = Annotated[str, AfterValidator(check_name)]
"""Field of a pydantic model that holds a checked name."""
