"""Downloads over HTTP: complete or not at all, and continued where an earlier attempt stopped.

The bytes that came are in `<name>.part`; `<name>.part.json` says which version of the file they
belong to (its ETag or date), because bytes are only added to a part of the same version.
"""

import logging
import os
import re
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3

from nuclei.data.http_stream import Answer, InterruptedAnswerError, open_answer
from nuclei.errors import UserError
from nuclei.io.files import write_json
from nuclei.io.records import Record, read_record
from nuclei.progress import Progress

log = logging.getLogger(__name__)

ATTEMPTS = 6
"""Attempts in a row without a new byte; with doubling waits they last half a minute."""
PATIENCE = 600.0
"""Seconds in which at least PROGRESS bytes must come, or the download is given up."""
PROGRESS = 2**20
TIMEOUT = (15.0, 60.0)
"""Seconds to wait for a connection and for the next bytes."""
HEAD_SECONDS = 90.0
"""Time limit in seconds for the connection and the response headers, redirects included."""
LONGEST_WAIT = 120.0
"""Seconds; a server that asks to wait longer is not waited for."""
MAX_BYTES = 8 * 2**30
"""Larger files are refused. The archives of the competition have 83 MB."""
MEGABYTE = 10**6
TEMPORARY_STATUS = (408, 429, 500, 502, 503, 504)
REMEDIES = {
    401: "it needs a login",
    403: "it is not public, or a proxy blocks it; open the address in a browser",
    404: "no such file; check the address, or use another --source",
    410: "the file was removed; use another --source",
}
_INTERRUPTIONS = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.TimeoutError,
)


class PartNote(Record):
    """What is known of a part: address, version and size in bytes of the whole file."""

    url: str = ""
    version: str = ""
    """Empty: the part cannot be continued."""
    size: int | None = None


class _Progress:
    """Counts attempts without a new byte, and the time without PROGRESS bytes."""

    def __init__(self) -> None:
        self.failures = self.most = self.mark = 0
        self.since = time.monotonic()

    def check(self, url: str, size: int) -> None:
        """Raises a UserError if a part of `size` bytes has grown too slowly."""
        now = time.monotonic()
        if size >= self.mark + PROGRESS:
            self.mark, self.since = size, now
        if now - self.since > PATIENCE:
            raise UserError(
                f"{public_url(url)}: {size - self.mark} bytes came in {now - self.since:.0f} s; "
                f"check the network or proxy, the same command continues at byte {size}"
            )

    def count(self, size: int) -> int:
        """Failures in a row, after an attempt that left `size` bytes."""
        self.failures = 0 if size > self.most else self.failures + 1
        self.most = max(self.most, size)
        return self.failures


def fetch(url: str, path: Path) -> None:
    """Downloads `url` to `path`, which exists only when it is complete. Network errors are retried.

    Raises:
        UserError: the server refuses or has no such file; ATTEMPTS attempts in a row without a new
            byte, each of HEAD_SECONDS at most until the body begins; less than PROGRESS bytes in
            PATIENCE seconds; more than MAX_BYTES.
    """
    part = path.with_name(path.name + ".part")
    progress = _Progress()
    while True:
        try:
            _receive(url, part, progress)
            break
        except requests.exceptions.SSLError as error:
            raise UserError(
                f"{public_url(url)}: its certificate is not accepted ({error}); behind a proxy "
                "that inspects traffic, set REQUESTS_CA_BUNDLE to its certificate"
            ) from error
        except (*_INTERRUPTIONS, InterruptedAnswerError) as error:
            _retry(url, part, progress, error)
        except UserError:
            raise
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            # ValueError: a redirect to what is no address
            raise UserError(
                f"{public_url(url)}: cannot be downloaded ({error!s:.300}); check the address"
            ) from error
    os.replace(part, path)
    _note_path(part).unlink(missing_ok=True)


def public_url(url: str) -> str:
    """`url` without user, password, query and fragment, which may hold secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _receive(url: str, part: Path, progress: _Progress) -> None:
    """One attempt: adds bytes to `part` until it is complete."""
    note = _read_note(part, url)
    offset = part.stat().st_size if note.version else 0
    if offset and offset == note.size:
        return  # killed between the last byte and the renaming
    headers = {"Accept-Encoding": "identity"}  # sizes and offsets are those of the file itself
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": note.version}
    with open_answer(url, headers, TIMEOUT, HEAD_SECONDS) as answer:
        response = answer.response
        is_range = response.status_code == 206
        if response.status_code == 416 or (is_range and not _continues(response, offset, note)):
            part.unlink(missing_ok=True)
            status = response.status_code
            raise InterruptedAnswerError(f"status {status} does not continue at byte {offset}; starting again")
        _check_status(response, url)
        if not is_range:  # the whole file: the server knows no ranges, or the file has changed
            offset = 0
            part.write_bytes(b"")
            version, size = _read_version(response), _read_size(response)
            note = PartNote(url=public_url(url), version=version, size=size)
            write_json(_note_path(part), note.model_dump())
        _write_body(answer, url, part, offset, note.size, progress)


def _write_body(
    answer: Answer,
    url: str,
    part: Path,
    received: int,
    size: int | None,
    progress: _Progress,
) -> None:
    limit = MAX_BYTES if size is None else size
    if limit > MAX_BYTES:
        raise UserError(f"{public_url(url)}: {size} bytes, expected at most {MAX_BYTES}; check the address")
    name = part.name.removesuffix(".part")
    total = None if size is None else size // MEGABYTE
    megabytes = Progress(f"download {name}", "MB", total, received // MEGABYTE, summary=False)
    # without a buffer: what came before a connection breaks is in the file
    with megabytes, open(part, "ab", buffering=0) as file:
        for chunk in answer.chunks(lambda: progress.check(url, part.stat().st_size)):
            _write_chunk(file.fileno(), chunk, part)
            received += len(chunk)
            megabytes.update(received // MEGABYTE - megabytes.done)
            progress.check(url, received)
            if received > limit:
                break
    if received > limit:
        part.unlink()
    if size is None and received > limit:
        raise UserError(f"{public_url(url)}: more than {MAX_BYTES} bytes; check the address")
    if size is not None and received != size:
        raise InterruptedAnswerError(f"{received} bytes came, expected {size}")


def _write_chunk(descriptor: int, chunk: bytes, part: Path) -> None:
    try:
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        error.filename = str(part)  # a full disk does not say which file
        raise


def _retry(url: str, part: Path, progress: _Progress, error: Exception) -> None:
    """Waits before the next attempt, or raises a UserError after too many."""
    size = part.stat().st_size if part.exists() else 0
    failures = progress.count(size)
    if failures >= ATTEMPTS:
        raise UserError(
            f"{public_url(url)}: the connection fails, {failures} attempts without a new byte "
            f"(last: {error}). Check the network or proxy; the same command continues at byte "
            f"{size}"
        ) from error
    progress.check(url, size)
    wait = getattr(error, "wait", None)
    seconds = min(2.0**failures, 30.0) if wait is None else wait
    log.warning(
        "%s: %s; next attempt in %.0f s (failure %d of %d)",
        public_url(url),
        error,
        seconds,
        failures,
        ATTEMPTS,
    )
    time.sleep(seconds)


def _check_status(response: requests.Response, url: str) -> None:
    status, place = response.status_code, public_url(url)
    if status in (200, 206):
        return
    reason = "".join(filter(str.isprintable, response.reason or ""))[:60]
    if status in TEMPORARY_STATUS:
        wait = response.headers.get("Retry-After", "")
        seconds = float(wait) if wait.isdecimal() else None
        if seconds is not None and seconds > LONGEST_WAIT:
            raise UserError(
                f"{place}: the server answers {status} and asks to wait {seconds:.0f} s; try again then"
            )
        raise InterruptedAnswerError(f"the server answers {status} {reason}", seconds)
    remedy = REMEDIES.get(status, "check the address")
    raise UserError(f"{place}: the server answers {status} {reason}, expected 200; {remedy}")


def _continues(response: requests.Response, offset: int, note: PartNote) -> bool:
    """Whether a partial answer holds the bytes from `offset` on of the known version."""
    header = response.headers.get("Content-Range", "").strip()
    span = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", header)
    if span is None or int(span[1]) != offset or offset == 0:
        return False
    same_size = span[2] == "*" or note.size is None or int(span[2]) == note.size
    return same_size and _read_version(response) in ("", note.version)


def _read_version(response: requests.Response) -> str:
    """Name of the file's version: a strong ETag, else its date, else empty."""
    if "Content-Encoding" in response.headers:
        return ""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _read_size(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    is_known = re.fullmatch(r"\d{1,18}", length) and "Content-Encoding" not in response.headers
    return int(length) if is_known else None


def _note_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_note(part: Path, url: str) -> PartNote:
    """What is known of a part; an empty note where it cannot be continued."""
    path = _note_path(part)
    if not part.exists() or not path.exists():
        return PartNote()
    try:
        note = read_record(path, PartNote, "delete it")
    except UserError as error:
        log.warning("%s", error)
        return PartNote()
    return note if note.url == public_url(url) else PartNote()
