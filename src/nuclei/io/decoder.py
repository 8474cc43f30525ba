"""Decoding in a process of its own: a file on which a decoder dies is named, and the files after it are read.

The process is this interpreter with the same `sys.path`, so that neither a guard in the user's
script nor a fork of torch's threads is needed. Planes come through a pipe, large ones as files of
the scratch folder.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import numpy as np

from nuclei.errors import UserError
from nuclei.io import microscopy
from nuclei.io.microscopy import Survey
from nuclei.io.picture import IN_MEMORY, Picture, Reading, allocate, printable

_START = "import sys; sys.path[:] = {path!r}; from nuclei.io.decoder import serve; serve()"


class _Stored(NamedTuple):
    path: Path
    dtype: str
    shape: tuple[int, ...]


class Decoder:
    """Reads pictures in another process, which starts with the first file and ends with the block."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def read(self, path: Path, name: str, reading: Reading) -> Iterator[Picture]:
        """As `microscopy.read_pictures`.

        Raises:
            UserError: as there, and where the process dies on the file.
            OSError: the disk of the scratch folder is full.
        """
        return self._ask(path, name, reading)

    def survey(self, path: Path, reading: Reading) -> Survey:
        """As `microscopy.survey_file`.

        Raises:
            UserError: as there, and where the process dies on the file.
        """
        answers: list[Survey] = list(self._ask(path, None, reading))
        return answers[0]

    def _ask(self, path: Path, name: str | None, reading: Reading) -> Iterator[Any]:
        process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        finished = False
        try:
            _send(process.stdin, (path, name, reading))
            while isinstance(answer := _receive(process.stdout), Picture | Survey):
                yield _load_large(answer) if isinstance(answer, Picture) else answer
            finished = True
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise UserError(f"{printable(path)}: {self._describe_end()}; save it again") from error
        finally:
            if not finished:
                self._stop()  # what it has still to say belongs to this file
        if answer is not None:
            raise answer

    def _start(self) -> "subprocess.Popen[bytes]":
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START.format(path=sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        return self.process

    def _describe_end(self) -> str:
        assert self.process is not None
        code = self.process.wait()
        if code < 0:
            cause = " (probably out of memory)" if -code == getattr(signal, "SIGKILL", 9) else ""
            return f"the decoder died on it by {signal.Signals(-code).name}{cause}"
        return f"the decoder died on it with exit code {code}"

    def _stop(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.kill()
        process.stdout.close()
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.wait()


def serve() -> None:
    """Answers requests on standard input until it ends: each plane, then None, or the text of an error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints is no answer
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent has ended
        while True:
            _answer(answers, *_receive(sys.stdin.buffer))


def _answer(answers: IO[bytes], path: Path, name: str | None, reading: Reading) -> None:
    try:
        if name is None:
            _send(answers, microscopy.survey_file(path, reading))
        else:
            for number, picture in enumerate(microscopy.read_pictures(path, name, reading)):
                _send(answers, _store_large(picture, reading.scratch, number))
        _send(answers, None)
    except BrokenPipeError:
        raise
    except (UserError, OSError) as error:
        _send(answers, error)


def _store_large(picture: Picture, scratch: Path | None, number: int) -> Picture:
    """The picture with large arrays replaced by the path of a file in the scratch folder."""
    if scratch is None:
        return picture
    stored: dict[str, Any] = {}
    for name in ("pixels", "outside"):
        array = getattr(picture, name)
        if array is not None and array.nbytes > IN_MEMORY:
            # each plane has its own file: the next one is read while this one is in use
            target = allocate(array.shape, array.dtype, scratch, f"{number}-{name}")
            rows = max(1, IN_MEMORY // max(1, array.nbytes // len(array)))
            for top in range(0, len(array), rows):
                target[top : top + rows] = array[top : top + rows]
            target.flush()
            stored[name] = _Stored(Path(target.filename), array.dtype.str, array.shape)
    return replace(picture, **stored)


def _load_large(picture: Picture) -> Picture:
    loaded: dict[str, Any] = {}
    for name in ("pixels", "outside"):
        stored = getattr(picture, name)
        if isinstance(stored, _Stored):
            loaded[name] = np.memmap(stored.path, stored.dtype, "r", shape=stored.shape)
            with contextlib.suppress(OSError):  # Windows keeps the names of open files
                stored.path.unlink()
    return replace(picture, **loaded)


def _send(stream: Any, message: Any) -> None:
    content = pickle.dumps(message, protocol=5)
    stream.write(len(content).to_bytes(8, "little"))
    stream.write(content)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    """The next message.

    Raises:
        EOFError: the other process has ended.
    """
    size = int.from_bytes(_read(stream, 8), "little")
    return pickle.loads(_read(stream, size))


def _read(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content
