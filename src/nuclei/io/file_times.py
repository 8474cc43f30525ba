"""Times of results where the clock was set back, so that make does not take them for out of date.

make repeats a stage whose result is older than what it was made from. After the clock was set back
a result would be older than inputs of before, and a finished training would begin again.
"""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_newest_input = 0.0


def note_inputs(arguments: Iterable[str]) -> None:
    """Notes the newest of the files that a command line names, folders included."""
    global _newest_input
    for argument in arguments:
        with suppress(OSError, ValueError):  # most arguments are no files
            _newest_input = max(_newest_input, os.stat(argument).st_mtime)


def keep_order(path: Path) -> None:
    """Gives a file that was just written a time after all inputs, where the clock says otherwise."""
    if _newest_input > time.time():
        os.utime(path, (_newest_input + 0.001,) * 2)
