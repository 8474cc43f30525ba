"""A pool of worker processes with results in the order of the jobs."""

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
    """A `map` over processes, each with its own task `build(*arguments)`; results come in the order of the jobs.

    One worker is this process itself.

    Raises:
        UserError: no worker; a worker that the system ended.
    """
    if workers < 1:
        raise UserError(f"expected at least one worker, got {workers}")
    if workers == 1:
        task = build(*arguments)
        yield lambda jobs: map(task, jobs)
        return
    # OpenCV's threads do not live on in a fork, which would wait for them for ever: they end before, here
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with ProcessPoolExecutor(workers, initializer=_set_up, initargs=(build, arguments)) as pool:
            yield lambda jobs: pool.map(_work, jobs, chunksize=_CHUNK)
    except BrokenProcessPool as error:
        raise UserError(
            f"one of {workers} workers ended without a word, most likely for want of memory; use fewer workers"
        ) from error
    finally:
        cv2.setNumThreads(threads)


def _set_up(build: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    global _task
    cv2.setNumThreads(1)  # the processes share the cores already
    _task = build(*arguments)


def _work(job: Any) -> Any:
    assert _task is not None
    return _task(job)
