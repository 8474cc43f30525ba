"""An answer over HTTP that is read in a thread of its own, so that every wait for it has an end.

The timeouts of a socket count from the last byte: a server that sends one now and then would be
waited for without end. Here the reader waits for the server, and who wants the answer waits for the
reader, as long as it likes.
"""

import io
import queue
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any

import requests
import urllib3

CHUNK_BYTES = 2**18
LATE = 1.0
"""Seconds after which a wait for more bytes is reported, so that it can be given up."""


class InterruptedAnswerError(Exception):
    """An attempt that left the file incomplete; may be retried, after `wait` seconds if given."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class Answer:
    """The head of an answer, and its body as it comes."""

    def __init__(
        self, url: str, headers: Mapping[str, str], timeout: tuple[float, float], seconds: float
    ) -> None:
        # few: a reader that is faster than the disk waits
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=4)
        self._left = threading.Event()
        arguments = (url, dict(headers), timeout)
        # a daemon, since nothing ends a read that waits; what it brings later is dropped
        threading.Thread(target=self._read, args=arguments, daemon=True).start()
        try:
            self.response: requests.Response = self._take(seconds)
        except queue.Empty:
            self.leave()
            raise InterruptedAnswerError(f"no whole head of an answer within {seconds:.0f} s") from None
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Lets the reader end."""
        self._left.set()

    def chunks(self, while_waiting: Callable[[], None]) -> Iterator[bytes]:
        """Yields the body; after LATE seconds without data calls `while_waiting`; it may raise."""
        while True:
            try:
                chunk = self._take(LATE)
            except queue.Empty:
                while_waiting()
                continue
            if chunk is None:
                return
            yield chunk

    def _take(self, seconds: float) -> Any:
        item = self._queue.get(timeout=seconds)
        if isinstance(item, Exception):
            raise item
        return item

    def _read(self, url: str, headers: dict[str, str], timeout: tuple[float, float]) -> None:
        """Puts headers, body chunks and None into the queue, or the exception that was raised."""
        try:
            with requests.get(url, headers=headers, stream=True, timeout=timeout, hooks=HOOKS) as response:
                self._put(response)
                for chunk in read_body(response):
                    self._put(chunk)
                    if self._left.is_set():
                        return
            self._put(None)
        except Exception as error:
            self._put(error)

    def _put(self, item: Any) -> None:
        while not self._left.is_set():
            try:
                self._queue.put(item, timeout=LATE)
                return
            except queue.Full:
                continue


@contextmanager
def open_answer(
    url: str, headers: Mapping[str, str], timeout: tuple[float, float], seconds: float
) -> Iterator[Answer]:
    """The response to a GET whose headers must come within `seconds`, redirects included.

    Raises: InterruptedAnswerError, or what `requests.get` raises.
    """
    answer = Answer(url, headers, timeout, seconds)
    try:
        yield answer
    finally:
        answer.leave()


def drop_redirect(response: requests.Response, *_: Any, **__: Any) -> None:
    """Leaves the body of a redirect unread; requests would read all of it, however long it gets."""
    if response.is_redirect:
        response.raw.close()
        response.raw = urllib3.HTTPResponse(io.BytesIO(), preload_content=False)


HOOKS: Any = {"response": drop_redirect}


def read_body(response: requests.Response) -> Iterator[bytes]:
    """The body, unpacked, as it comes; read1 loses nothing of what came before a connection broke.

    urllib3 reads a line with a chunk's size however long it is; http.client has a limit.
    """
    raw: Any = response.raw._original_response
    try:
        chunks = iter(lambda: raw.read1(CHUNK_BYTES), b"")
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        yield from chunks if encoding == "identity" else unpack(chunks, encoding)
    except (OSError, HTTPException) as error:
        raise InterruptedAnswerError(f"the connection broke ({error!r:.200})") from error


def unpack(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """What gzip or deflate packed, in parts of at most CHUNK_BYTES."""
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ValueError(f"packed as {encoding!r:.40}, which was not asked for")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        for chunk in chunks:
            while chunk:
                yield unpacker.decompress(chunk, CHUNK_BYTES)
                chunk = unpacker.unconsumed_tail
    except zlib.error as error:
        raise InterruptedAnswerError(f"the packed answer is damaged ({error})") from error
    if not unpacker.eof:
        raise InterruptedAnswerError("the packed answer is cut off")
