import os
import subprocess
import sys
from pathlib import Path

import pytest

from nuclei.io.locks import folder_lock

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is no lock on Windows")
HOLDS = """
import logging, os, sys, time
from pathlib import Path
from nuclei.io.locks import folder_lock
logging.basicConfig(format="%(message)s")
with folder_lock(Path("folder")):
    print("held", flush=True)
    input()
    print("released", flush=True)
"""


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-c", HOLDS],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_second_process_says_that_it_waits_and_goes_on_when_the_first_ends(tmp_path):
    first = start(tmp_path)
    assert first.stdout.readline() == "held\n"
    second = start(tmp_path)
    assert second.stderr.readline() == "folder: another process writes there; waiting until it ends\n"
    assert second.poll() is None
    first.kill()
    assert second.stdout.readline() == "held\n"
    assert second.communicate("\n")[0] == "released\n"


def test_the_lock_leaves_no_file_and_can_be_taken_again(tmp_path):
    for _ in range(2):
        with folder_lock(tmp_path / "folder"):
            assert list((tmp_path / "folder").iterdir()) == []
