"""Runs a script of scripts/ in this process, since a new one imports for a second or more."""

import contextlib
import io
import logging
import runpy
import subprocess
import sys
from pathlib import Path

import torch

SCRIPTS = Path(__file__).parents[1] / "scripts"


def run_script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Exit code, standard output and standard error (the log too) of `scripts/<name> <arguments>`.

    For tests of what a script reads, writes and says. What it imports, leaves behind when it is
    killed, or takes from the environment at its start needs a process of its own.
    """
    out, err = io.StringIO(), io.StringIO()
    root, threads, before = logging.getLogger(), torch.get_num_threads(), sys.argv
    level, handler = root.level, logging.StreamHandler(err)
    handler.setFormatter(logging.Formatter("%(message)s"))
    sys.argv = [str(SCRIPTS / name), *map(str, arguments)]
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        torch.set_num_threads(threads)
        sys.argv = before
    return subprocess.CompletedProcess([name, *map(str, arguments)], code, out.getvalue(), err.getvalue())
