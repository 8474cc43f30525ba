"""A Python with torch and this project imported, for tests that run many scripts by make.

`python=<warm.command>` in a make runs `scripts/*.py` in forks of one process, and all else in the
ordinary Python. A script gets the arguments, environment, folder, standard streams and exit code of
a process of its own. A command that is killed takes the script and its workers with it. For tests
of what scripts do together. What a script imports and how it starts needs the ordinary Python, as
in the first run of test_pipeline. The project is the one below `source`, whatever PYTHONPATH a make
sets.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from types import TracebackType

SOURCE = Path(__file__).parents[1] / "src"
LOADED = (
    "training.loop", "training.distributed", "inference.weights", "evaluation.tuning", "evaluation.ensemble_weights",
    "evaluation.unseen", "data.prepare", "data.archive", "data.download", "data.splits", "submission.submission",
    "reporting.leaderboard", "reporting.comparison", "reporting.ablation", "reporting.plots", "publishing.model_card",
)  # fmt: skip

COMMAND = """#!/bin/sh
case "$1" in scripts/*.py) exec {python} -IS {client} {socket} "$@";; esac
exec {python} "$@"
"""
CLIENT = """
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
socket.send_fds(server, [b"3"], [0, 1, 2])
asked = {"arguments": sys.argv[2:], "folder": os.getcwd(), "environment": dict(os.environ)}
server.sendall(json.dumps(asked).encode() + b"\\n")
code = server.recv(9)
sys.exit(int(code) if code else 1)  # no code: the script was killed
"""


class WarmPython:
    """The running server; `command` is the path that a make takes as its PYTHON."""

    def __init__(self, source: Path = SOURCE) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="warm"))  # the path of a socket has to be short
        path, self.command = self.folder / "socket", self.folder / "python"
        client = self.folder / "client.py"
        client.write_text(CLIENT)
        self.command.write_text(COMMAND.format(python=sys.executable, client=client, socket=path))
        self.command.chmod(0o755)
        self.server = subprocess.Popen(
            [sys.executable, __file__, str(path)],
            env=os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
        )
        assert self.server.stdout
        assert self.server.stdout.readline() == b"ready\n"

    def __enter__(self) -> "WarmPython":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.kill()
        self.server.wait()
        shutil.rmtree(self.folder)


def serve(path: str) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(64)
    for name in LOADED:
        importlib.import_module(f"nuclei.{name}")
    gc.freeze()  # memory that forks share
    print("ready", flush=True)
    while True:
        caller, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            run_for(caller)
        caller.close()
        with suppress(ChildProcessError):  # none has run yet, or none has ended
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


def run_for(caller: socket.socket) -> None:
    """Runs a script in this fork as its caller asks."""
    os.setpgid(0, 0)
    _, streams, _, _ = socket.recv_fds(caller, 1, 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    asked = json.loads(caller.makefile("rb").readline())
    threading.Thread(target=end_with, args=(caller,), daemon=True).start()
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.argv = asked["arguments"]
    sys.path[0] = str(Path(sys.argv[0]).parent.absolute())
    code = run_script()
    with suppress(OSError):  # a caller that was killed meanwhile
        caller.sendall(str(code).encode())
    os._exit(code)


def run_script() -> int:
    """Runs `sys.argv` and what a process does at its end; its exit code."""
    code: object = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


def end_with(caller: socket.socket) -> None:
    """Kills this script and its workers when its caller is gone."""
    if caller.recv(1) == b"":
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    serve(sys.argv[1])
