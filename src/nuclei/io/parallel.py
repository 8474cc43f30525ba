"""A pool of worker processes whose results come in the order of the jobs."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import cv2

from nuclei.errors import UserError

_CHUNK = 4
_task: Callable[[Any], Any] | None = None


@contextmanager
def open_pool(
    workers: int, build: Callable[..., Callable[[Any], Any]], *arguments: Any
) -> Iterator[Callable[[Iterable[Any]], Iterator[Any]]]:
    """A `map` over processes, each of which calls its own task `build(*arguments)`.

    Results come in the order of the jobs. One worker means this process itself.

    Raises:
        UserError: fewer than one worker; a worker was killed.
    """
    if workers < 1:
        raise UserError(f"expected at least one worker, got {workers}")
    if workers == 1:
        task = build(*arguments)
        yield lambda jobs: map(task, jobs)
        return
    # a forked process would wait forever for OpenCV's threads, which do not survive the fork
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with ProcessPoolExecutor(workers, initializer=_set_up, initargs=(build, arguments)) as pool:
            try:
                yield lambda jobs: pool.map(_work, jobs, chunksize=_CHUNK)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # do not finish the waiting jobs first
                raise
    except BrokenProcessPool as error:
        raise UserError(
            f"one of {workers} worker processes was killed, probably out of memory; use fewer workers"
        ) from error
    finally:
        cv2.setNumThreads(threads)


def _set_up(build: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    global _task
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends the pool
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)  # the processes share the cores already
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _task = build(*arguments)


def _end_with(parent: int) -> None:
    """Ends this worker when its parent is gone: a killed parent cannot, and the worker would wait
    for jobs for ever and hold the parent's locks.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(job: Any) -> Any:
    assert _task is not None
    return _task(job)
