"""Atomic writing of files, and small text, CSV and JSON files.

Every file is written under a temporary name in its folder and renamed when it is complete, so a
file that exists is complete. Equal content gives equal bytes.
"""

import errno
import hashlib
import json
import mmap
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nuclei.arrays import Pixels
from nuclei.errors import UserError
from nuclei.io.file_times import keep_order

STALE_SECONDS = 24 * 3600.0
"""Age from which a temporary file of another machine counts as left by a killed process."""

_TEMPORARY = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.tmp", re.DOTALL)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_cleaned: set[Path] = set()


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path in the folder of `path`: renamed to `path` on success, removed on an exception.

    The temporary name is unique, so processes that write the same file do not disturb each other;
    the last one to finish wins. The first call for a folder removes what killed processes left
    there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent.absolute()
    if folder not in _cleaned:
        _cleaned.add(folder)
        remove_stale_temporaries(folder)
    temporary = path.with_name(_temporary_name(path.name))
    try:
        yield temporary
        keep_order(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in _DISK_ERRORS and error.filename in (None, str(temporary)):
            error.filename = str(path)  # a full disk does not say which file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_stale_temporaries(folder: Path) -> int:
    """Removes temporary files of `atomic_path` whose process is gone; returns their number."""
    stale = [path for path in folder.iterdir() if _is_stale_temporary(path)]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def _temporary_name(name: str) -> str:
    # of a long name the beginning only: file systems allow 255 bytes
    return f".{name[:40]}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


@cache
def _machine() -> str:
    """Eight hexadecimal digits for this host: process numbers of another host mean nothing here."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_stale_temporary(path: Path) -> bool:
    found = _TEMPORARY.fullmatch(path.name)
    if found is None:
        return False
    if found["machine"] == _machine() and os.name == "posix":
        return not _is_running(int(found["process"]))
    try:
        return time.time() - path.stat().st_mtime > STALE_SECONDS
    except FileNotFoundError:  # its process finished in between
        return False


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it runs as another user
        return True
    return True


def release(array: Pixels) -> None:
    """Drops the pages of a memory-mapped array from memory; they are read from disk when needed again.

    Touched pages count as memory of the process until another process needs memory, and a memory
    limit may not wait for that. Arrays that are not memory-mapped are left as they are.
    """
    base: Any = array
    while isinstance(base, np.ndarray) and not hasattr(base, "_mmap"):
        base = base.base
    mapped = getattr(base, "_mmap", base)
    if not isinstance(mapped, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    if getattr(base, "mode", None) != "c":  # private pages would lose what was written to them
        mapped.madvise(mmap.MADV_DONTNEED)


def write_text(path: Path | str, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path | str, frame: Any) -> None:
    """Writes a pandas.DataFrame without its index."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def write_json(path: Path | str, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path | str) -> Any:
    """Value of a JSON file that this program wrote.

    Raises:
        UserError: the file is no JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); delete it and run the command again") from error


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
