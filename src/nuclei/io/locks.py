"""A lock for a folder, so that two processes that write the same files take turns."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which is made if missing; waits while another process holds it.

    The system releases the lock when a process ends, however it ends. There is no lock on Windows
    and on file systems without locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _wait_for_lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _wait_for_lock(handle: int, folder: Path) -> None:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("%s: another process writes there; waiting until it ends", folder)
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        log.info("%s: this file system has no locks (%s)", folder, error.strerror)
