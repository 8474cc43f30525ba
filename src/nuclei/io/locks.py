"""A lock for a folder, so that two processes that write the same files take turns."""

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nuclei.errors import UserError

log = logging.getLogger(__name__)

NOTE = ".lock"
"""File in a locked folder that says who holds it. The lock itself is on the folder."""


@contextmanager
def folder_lock(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Holds the lock of a folder, which is made if missing; yields whether another process had it.

    The system releases the lock when a process ends, however it ends. There is no lock on Windows
    and on file systems without locks.

    Raises:
        UserError: another process holds it and `wait` is false; the message says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        waited = _take(handle, folder, wait)
        _write_note(folder)
        try:
            yield waited
        finally:
            with suppress(OSError):
                (folder / NOTE).unlink()
    finally:
        os.close(handle)


def _take(handle: int, folder: Path, wait: bool) -> bool:
    """Takes the lock; returns whether another process had it before."""
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _read_note(folder)
        if not wait:
            raise UserError(f"{folder}: {holder} writes there; wait until it ends, or stop it") from None
        log.warning("%s: %s writes there; waiting until it ends", folder, holder)
        fcntl.flock(handle, fcntl.LOCK_EX)
        return True
    except OSError as error:
        log.info("%s: this file system has no locks (%s)", folder, error.strerror)
    return False


def _write_note(folder: Path) -> None:
    # a disk that is full keeps nobody from the lock; the note is replaced, not rewritten, since
    # another process may be reading it; only the holder writes, and what a killed one left is
    # written over
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    temporary = folder / f"{NOTE}.new"
    with suppress(OSError):
        temporary.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {started},")
        temporary.replace(folder / NOTE)
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


def _read_note(folder: Path) -> str:
    """The holder in words. The holder may not have written its note yet, or could not."""
    try:
        note = (folder / NOTE).read_text(errors="replace")[:300]
    except OSError:
        return "another process"
    return note if note.isprintable() and note else "another process"
