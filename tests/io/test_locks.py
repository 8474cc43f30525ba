import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nuclei.errors import UserError
from nuclei.io.locks import NOTE, folder_lock

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
    said = second.stderr.readline()
    assert said.startswith(f"folder: process {first.pid} on {socket.gethostname()}, since ")
    assert said.endswith(", writes there; waiting until it ends\n")
    assert second.poll() is None
    first.kill()
    assert second.stdout.readline() == "held\n"
    assert second.communicate("\n")[0] == "released\n"


def test_the_lock_leaves_no_file_and_can_be_taken_again(tmp_path):
    for _ in range(2):
        with folder_lock(tmp_path / "folder") as waited:
            assert not waited
        assert list((tmp_path / "folder").iterdir()) == []


def test_a_process_that_may_not_wait_is_told_who_holds_the_folder(tmp_path):
    with (
        folder_lock(tmp_path),
        pytest.raises(UserError, match=f"process {os.getpid()} on .*wait until it ends"),
        folder_lock(tmp_path, wait=False),
    ):
        pass


@pytest.mark.parametrize("note", [b"", b"\x1b[2J\n\xff", b"a" * 10_000])
def test_a_note_that_says_nothing_useful_does_not_reach_the_terminal(tmp_path, note):
    with folder_lock(tmp_path):
        (tmp_path / NOTE).write_bytes(note)
        with pytest.raises(UserError) as refused, folder_lock(tmp_path, wait=False):
            pass
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1000
