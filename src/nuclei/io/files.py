"""Files that one stage writes and another reads: images, label maps, probability maps, tables.

Every file is written under a temporary name beside its place and renamed when it is whole, so a file that exists
is a file that can be read. The same content gives the same bytes.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nuclei.arrays import Pixels


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to `path` when the block ends well and removed when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # always the same name, so that what a killed process left is overwritten by the next
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def release(array: Pixels) -> None:
    """Takes an array that lies on a disk out of the memory; read again, it comes from there. Others stay as they are.

    Pages that were touched count as memory of the process until another needs it, and a limit may not wait for that.
    """
    base: Any = array
    while isinstance(base, np.ndarray) and not hasattr(base, "_mmap"):
        base = base.base
    mapped = getattr(base, "_mmap", base)
    # private pages (mode "c") would lose what was written to them
    if isinstance(mapped, mmap.mmap) and getattr(base, "mode", None) != "c" and hasattr(mmap, "MADV_DONTNEED"):
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
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256(path: Path | str) -> str:
    """Hexadecimal digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
