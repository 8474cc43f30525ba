"""Writes make's rules of all experiments, folds and studies, and prints the file's name.

The Makefile runs this on every call and includes what it prints. It needs the standard library
alone, since it runs before anything is installed. What it refuses, it prints as one line and exits
with 1.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  # before any import of what an older Python lacks
    found = ".".join(map(str, sys.version_info[:3]))
    print(f"Python 3.11 or later is needed, {sys.executable} is {found}; give another with PYTHON=<path>")
    raise SystemExit(1)

from rules.main import main

raise SystemExit(main(sys.argv[1:]))
