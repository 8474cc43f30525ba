import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nuclei.errors import UserError
from nuclei.io.locks import folder_lock
from nuclei.io.parallel import open_pool

ROOT = Path(__file__).parents[2]


def add(number):
    return lambda job: job + number


def kill_itself():
    return lambda job: os.kill(os.getpid(), signal.SIGKILL)


def ask_for_sigint():
    return lambda job: signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_jobs(workers):
    with open_pool(workers, add, 10) as run:
        assert list(run(range(50))) == list(range(10, 60))


def test_a_killed_worker_is_said():
    with (
        pytest.raises(UserError, match="one of 2 worker processes was killed"),
        open_pool(2, kill_itself) as run,
    ):
        list(run(range(2)))


def test_no_workers_are_refused():
    with pytest.raises(UserError, match="at least one worker, got 0"), open_pool(0, add, 1):
        pass


def test_ctrl_c_is_left_to_the_parent_process():
    with open_pool(2, ask_for_sigint) as run:
        assert list(run(range(8))) == [True] * 8


HOLDS = """
import time
from pathlib import Path
from nuclei.io.locks import folder_lock
from nuclei.io.parallel import open_pool

def build():
    return lambda job: job

with folder_lock(Path("folder")), open_pool(2, build) as work:
    print(list(work(range(2))), flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="there is no lock on Windows")
def test_workers_end_with_a_killed_parent_and_its_lock_with_them(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    parent = subprocess.Popen(
        [sys.executable, "-c", HOLDS], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout.readline() == "[0, 1]\n"
    parent.kill()
    until = time.monotonic() + 60
    while True:
        try:
            with folder_lock(tmp_path / "folder", wait=False):
                break
        except UserError:
            assert time.monotonic() < until, "a worker still holds the lock"
            time.sleep(0.1)
