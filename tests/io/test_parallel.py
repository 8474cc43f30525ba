import os
import signal

import pytest

from nuclei.errors import UserError
from nuclei.io.parallel import open_pool


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
