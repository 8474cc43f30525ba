"""Files fetched over HTTP: whole or not at all, going on where an earlier attempt was cut off.

What has come stands in `<name>.part`; `<name>.part.json` says which version of the file that is (its ETag or date),
for bytes are only ever added to a part of the same version.
"""

import logging
import os
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from tqdm import tqdm

from nuclei.errors import UserError
from nuclei.io.files import read_json, write_json

log = logging.getLogger(__name__)

# Attempts in a row that bring no new byte; with the doubling waits they last half a minute.
ATTEMPTS = 6
# Seconds to wait for a connection and for the next bytes.
TIMEOUT = (15.0, 60.0)
LONGEST_WAIT = 120.0
CHUNK_BYTES = 2**18
PASSING_FAULTS = (408, 429, 500, 502, 503, 504)


class _InterruptedError(Exception):
    """An attempt that brought no whole file but may be repeated."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def fetch(url: str, path: Path) -> None:
    """Downloads `url` to `path`, which appears only when it has come whole. A fault of the network is tried again.

    Raises:
        UserError: the server refuses or has no such file, or the network failed `ATTEMPTS` times in a row.
    """
    part = path.with_name(path.name + ".part")
    failures, most = 0, 0
    while True:
        try:
            _receive(url, part)
            break
        except requests.exceptions.SSLError as error:
            raise UserError(
                f"{public_url(url)}: its certificate is not accepted ({error}); behind a proxy "
                "that inspects traffic, set REQUESTS_CA_BUNDLE to its certificate"
            ) from error
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
            _InterruptedError,
        ) as error:
            size = part.stat().st_size if part.exists() else 0
            failures, most = (0, size) if size > most else (failures + 1, most)
            if failures >= ATTEMPTS:
                raise UserError(
                    f"{public_url(url)}: no connection that lasts, {failures} attempts without a new byte "
                    f"(last: {error}). Check the network or proxy; the same command goes on at byte {size}"
                ) from error
            _pause(url, error, failures)
        except requests.RequestException as error:
            raise UserError(f"{public_url(url)}: cannot be fetched ({error}); check the address") from error
    os.replace(part, path)
    _note(part).unlink(missing_ok=True)


def public_url(url: str) -> str:
    """`url` without user, password, query and fragment, which may hold secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _receive(url: str, part: Path) -> None:
    """One attempt: adds to `part` until it is whole."""
    known = _read_note(part, url)
    offset = part.stat().st_size if known["version"] else 0
    if offset and offset == known["size"]:
        return  # killed between the last byte and the renaming
    headers = {"Accept-Encoding": "identity"}  # sizes and positions mean the file's own bytes
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": known["version"]}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416 or (response.status_code == 206 and not _continues(response, offset, known)):
            part.unlink(missing_ok=True)
            raise _InterruptedError(
                f"status {response.status_code} does not go on at byte {offset}; from the start again"
            )
        _check_status(response, url)
        if response.status_code != 206:  # the whole file: the server knows no ranges, or the file has changed
            offset = 0
            part.write_bytes(b"")
            known = {"url": public_url(url), "version": _read_version(response), "size": _read_size(response)}
            write_json(_note(part), known)
        _write_body(response, part, offset, known["size"])


def _write_body(response: requests.Response, part: Path, offset: int, size: int | None) -> None:
    name = part.name.removesuffix(".part")
    with (
        open(part, "ab") as file,
        tqdm(total=size, initial=offset, desc=name, unit="B", unit_scale=True, disable=None) as bar,
    ):
        for chunk in response.iter_content(CHUNK_BYTES):
            file.write(chunk)
            bar.update(len(chunk))
    received = part.stat().st_size
    if size is not None and received > size:
        part.unlink()
    if size is not None and received != size:
        raise _InterruptedError(f"{received} bytes came, expected {size}")


def _check_status(response: requests.Response, url: str) -> None:
    status, place = response.status_code, public_url(url)
    if status in (200, 206):
        return
    if status in PASSING_FAULTS:
        wait = response.headers.get("Retry-After", "")
        seconds = float(wait) if wait.isdecimal() else None
        if seconds is not None and seconds > LONGEST_WAIT:
            raise UserError(f"{place}: the server answers {status} and asks to wait {seconds:.0f} s; try again then")
        raise _InterruptedError(f"the server answers {status} {response.reason}", seconds)
    remedy = {
        401: "it wants a login",
        403: "it is not for everybody, or a proxy blocks it; open the address in a browser",
        404: "no such file there; check the address, or take another --source",
        410: "the file was taken away; take another --source",
    }.get(status, "check the address")
    raise UserError(f"{place}: the server answers {status} {response.reason}, expected 200; {remedy}")


def _continues(response: requests.Response, offset: int, known: dict[str, Any]) -> bool:
    """Whether a partial answer holds the bytes from `offset` on of the version that is known."""
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if span is None or int(span[1]) != offset or offset == 0:
        return False
    same_size = span[2] == "*" or known["size"] is None or int(span[2]) == known["size"]
    return same_size and _read_version(response) in ("", known["version"])


def _read_version(response: requests.Response) -> str:
    """What names the version of the file: a strong ETag, else its date, else nothing (then no part is added to)."""
    if "Content-Encoding" in response.headers:
        return ""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _read_size(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and "Content-Encoding" not in response.headers else None


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_note(part: Path, url: str) -> dict[str, Any]:
    """What is known of a part that may be added to; an empty version where it may not."""
    if part.exists() and _note(part).exists():
        known: dict[str, Any] = read_json(_note(part))
        if known["url"] == public_url(url):
            return known
    return {"url": "", "version": "", "size": None}


def _pause(url: str, error: Exception, failures: int) -> None:
    wait = getattr(error, "wait", None)
    seconds = min(2.0**failures, 30.0) if wait is None else wait
    log.warning(
        "%s: %s; again in %.0f s (%d failures in a row, at most %d)",
        public_url(url),
        error,
        seconds,
        failures,
        ATTEMPTS,
    )
    time.sleep(seconds)
