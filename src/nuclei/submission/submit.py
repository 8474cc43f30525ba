"""Submits files to Kaggle, waits for their scores, and records both so that no file is sent twice.

Each description begins with a tag: the file's digest and a count. By the tag an entry is found in
Kaggle's list, so a run that was killed after Kaggle accepted the file, but before it was recorded,
is noticed by the next run, which sends nothing.
"""

import contextlib
import csv
import io
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import requests

from nuclei.errors import UserError
from nuclei.io.files import sha256, write_text
from nuclei.submission.kaggle_client import (
    COMPETITION,
    COMPETITION_PAGE,
    PHONE_PAGE,
    TOKEN_PAGE,
    connect,
    explain_errors,
    status_of,
)
from nuclei.submission.submission import read_submission, validate

log = logging.getLogger(__name__)

OTHERWISE = "score the file here: `make score TRUTH=stage1_solution.csv`, with the solution of the organisers"
"""Alternative to Kaggle for a user who wants a score."""
PAUSE = 10.0
"""Seconds between two requests for a score."""
PAGE = 100
SCORED, REFUSED, WAITING = "complete", "error", "submitted"


@dataclass(frozen=True)
class Entry:
    """A row of the record. `date` is the server's; scores are as Kaggle writes them, or empty."""

    file: str
    sha256: str
    message: str
    number: str
    status: str = WAITING
    date: str = ""
    public_score: str = ""
    private_score: str = ""

    @property
    def tag(self) -> str:
        """Beginning of the description."""
        return f"[{self.sha256[:12]} {self.number}]"


def submit(
    path: Path,
    sizes: Mapping[str, tuple[int, int]] | None,
    message: str,
    record: Path,
    timeout: float = 600.0,
    again: bool = False,
) -> Entry:
    """Submits a file, waits for its score and returns the entry, which is also in `record` (CSV).

    A file that the record or Kaggle's list has is not sent again; a missing score is requested.
    With `again` a file is sent once more, if its last entry has a score or was rejected. `timeout`
    is for the score, in seconds. `sizes` of the test images are checked against; without them, as
    in a fresh clone without the images, the file's form alone is checked.

    Raises:
        UserError: a faulty submission or record; no credentials; Kaggle refuses, is out of reach,
            rejects the file, or has no score in time.
    """
    if sizes is None:
        read_submission(path)
        log.warning(
            "the images are not here (`make data`), so that runs of %s are not checked against their sizes",
            path,
        )
    else:
        validate(path, sizes)
    digest = sha256(path)
    entries = read_record(record)
    same = [entry for entry in entries if entry.sha256 == digest]
    if same and same[-1].status != WAITING and not again:
        log.info("%s went to Kaggle before (%s); --again sends it once more", path, record)
        _refuse_rejected(same[-1], "")
        return same[-1]
    client = connect(OTHERWISE)
    if same and same[-1].status == WAITING:
        entry = same[-1]
        log.info("%s is at Kaggle since before; only its score is asked for", path)
    else:
        entry = Entry(path.name, digest, message, str(len(same) + 1))
        if find(client, entry) is not None:
            log.info("%s is at Kaggle already as %s; it is not sent again", path, entry.tag)
        else:
            send(client, path, f"{entry.tag} {message}".strip())
        entries.append(entry)
        write_record(record, entries)
    ended, reason = _await_score(client, entry, timeout, record)
    write_record(record, [ended if other == entry else other for other in entries])
    _refuse_rejected(ended, reason)
    return ended


def refresh(record: Path) -> list[Entry]:
    """The entries of a record, with scores that have arrived since; submits nothing.

    Kaggle is asked only if an entry has no score. If that fails (no credentials, no network), the
    entry stays as it is and the log says why.

    Raises:
        UserError: the record is faulty.
    """
    entries = read_record(record)
    waiting = [entry for entry in entries if entry.status == WAITING]
    if not waiting:
        return entries
    try:
        client = connect(OTHERWISE)
        ended = {entry: _end(entry, find(client, entry)) for entry in waiting}
    except ValueError as error:
        log.warning(
            "%s: %d entries wait for a score, which cannot be asked for now: %s",
            record,
            len(waiting),
            error,
        )
        return entries
    entries = [ended.get(entry, entry) for entry in entries]
    write_record(record, entries)
    return entries


def read_record(path: Path) -> list[Entry]:
    """The entries of a record in the order in which they were sent; none without a file.

    Raises:
        UserError: another kind of table.
    """
    if not path.is_file():
        return []
    names = [field.name for field in fields(Entry)]
    try:
        with open(path, encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            rows = list(table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: no record of entries ({error}). Move the file away") from error
    if table.fieldnames != names or any(None in row or None in row.values() for row in rows):
        raise UserError(
            f"{path}: no record of entries; its columns must be {','.join(names)}. Move the file away"
        )
    return [Entry(**row) for row in rows]


def write_record(path: Path, entries: list[Entry]) -> None:
    """Writes the record of entries as CSV."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Entry)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(entry) for entry in entries)
    write_text(path, text.getvalue())


def find(client: Any, entry: Entry) -> Any:
    """The submission (`ApiSubmission`) in Kaggle's list with the entry's tag, or None.

    Raises:
        UserError: Kaggle refuses or is out of reach.
    """
    seen: set[int] = set()
    page = 1
    while True:
        with (
            explain_errors("the list of submissions", OTHERWISE),
            _explain_refusal("the list of submissions"),
        ):
            listed = client.competition_submissions(COMPETITION, page_number=page, page_size=PAGE) or []
        for submission in listed:
            if (submission.description or "").startswith(entry.tag):
                return submission
        new = {submission.ref for submission in listed} - seen
        if not new:
            return None
        seen |= new
        page += 1


def send(client: Any, path: Path, description: str) -> None:
    """Uploads a file and submits it to the competition.

    Raises:
        UserError: Kaggle refuses or is out of reach, or the upload fails.
    """
    with (
        explain_errors(str(path), OTHERWISE),
        _explain_refusal(str(path)),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        answer = client.competition_submit(str(path), description, COMPETITION, quiet=True)
    log.info("%s: %s", path, answer.message)


def _await_score(client: Any, entry: Entry, timeout: float, record: Path) -> tuple[Entry, str]:
    """The entry with its score, or rejected with Kaggle's reason."""
    end = time.monotonic() + timeout
    while True:
        submission = find(client, entry)
        ended = _end(entry, submission)
        if ended.status != WAITING:
            return ended, submission.error_description or ""
        if time.monotonic() + PAUSE > end:
            raise UserError(
                f"kaggle: {entry.file}: no score after {timeout:g} s. The file is submitted and "
                f"is in {record}; the same command asks again and does not send it twice. See "
                f"{COMPETITION_PAGE}/submissions"
            )
        time.sleep(PAUSE)


def _end(entry: Entry, submission: Any) -> Entry:
    """The entry with status and scores of an `ApiSubmission`; unchanged while it is pending."""
    if submission is None or submission.status.name == "PENDING":
        return entry
    date = submission.date.isoformat(timespec="seconds") if submission.date else ""
    status = SCORED if submission.status.name == "COMPLETE" else REFUSED
    scores = {
        "public_score": submission.public_score or "",
        "private_score": submission.private_score or "",
    }
    return replace(entry, status=status, date=date, **scores)


def _refuse_rejected(entry: Entry, reason: str) -> None:
    if entry.status == REFUSED:
        raise UserError(
            f"kaggle: {entry.file}: Kaggle took the file but rejected its content "
            f"({reason or 'no reason given'}); see {COMPETITION_PAGE}/submissions, correct the "
            "file, or try the same one with --again"
        )


@contextlib.contextmanager
def _explain_refusal(what: str) -> Iterator[None]:
    """Explains errors of submitting; `explain_errors` speaks of downloads."""
    try:
        yield
    except requests.HTTPError as error:
        status = status_of(error)
        raise UserError(f"kaggle: {what}: status {status} ({error}); {_remedy(status, str(error))}") from error
    except requests.RequestException as error:
        raise UserError(
            f"kaggle: {what}: Kaggle cannot be reached ({error}). Check the network or proxy and "
            "run the same command again: it looks first whether the file has arrived"
        ) from error


def _remedy(status: int, message: str) -> str:
    words = message.lower()
    rules = (
        "accept the rules of the competition: click 'Late Submission' or 'Join' at "
        f"{COMPETITION_PAGE}/rules, verify the phone at {PHONE_PAGE}, then run this again"
    )
    closed = f"the competition takes no submissions now; {OTHERWISE}"
    if status == 401:
        return f"the credentials are not accepted; make a new token at {TOKEN_PAGE}"
    if status == 429 or "limit" in words:
        return (
            "too many submissions or requests; wait (the daily limit ends at midnight UTC) and run this again"
        )
    if status in (400, 403, 404) and any(
        word in words for word in ("closed", "ended", "deadline", "no longer")
    ):
        return closed
    if status == 403:
        return rules
    return f"no such competition, or {closed}" if status == 404 else "run the same command again later"
