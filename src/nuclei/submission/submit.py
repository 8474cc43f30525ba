"""Entries: submissions sent to Kaggle, the scores that come back, and the record that keeps a file from going twice.

Each description begins with a tag, the file's digest and a count, by which an entry is found again in Kaggle's list.
A run that is stopped between Kaggle's yes and the record is thus noticed by the next, which sends nothing.
"""

import contextlib
import csv
import io
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import requests

from nuclei.errors import UserError
from nuclei.io.files import sha256, write_text
from nuclei.submission import kaggle_client
from nuclei.submission.kaggle_client import (
    COMPETITION,
    COMPETITION_PAGE,
    PHONE_PAGE,
    TOKEN_PAGE,
    connect,
    explain_faults,
)
from nuclei.submission.submission import validate

log = logging.getLogger(__name__)

OTHERWISE = (
    "score the file here: `make score TRUTH=stage1_solution.csv`, with the solution that the organisers published"
)
"""What a user can do without Kaggle who wants a score."""
PAUSE = 10.0
"""Seconds between two questions for a score."""
PAGE = 100
SCORED, REFUSED, WAITING = "complete", "error", "submitted"


@dataclass(frozen=True)
class Entry:
    """A row of the record; `date` is the server's, and scores are as Kaggle writes them, empty where it shows none."""

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
        """What the description begins with."""
        return f"[{self.sha256[:12]} {self.number}]"


def submit(
    path: Path,
    sizes: Mapping[str, tuple[int, int]],
    message: str,
    record: Path,
    timeout: float = 600.0,
    again: bool = False,
) -> Entry:
    """The entry of a submission with its scores, which also stand in `record` (CSV).

    What the record or Kaggle's list has already is not sent again: where its score is missing, it is asked for. Only
    with `again` is a file sent once more whose last entry came to an end. `timeout` is in seconds and for the score.

    Raises:
        UserError: a submission or record that is faulty; no credentials, or Kaggle refuses, is out of reach, rejects
            the file, or has no score in time.
    """
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
    """The entries of a record, with the scores that have come since for those that waited; sends nothing.

    Kaggle is asked only where an entry waits. Where it cannot be (no credentials, no network), the entry goes on
    waiting and the log says why.

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
        log.warning("%s: %d entries wait for a score, which cannot be asked for now: %s", record, len(waiting), error)
        return entries
    entries = [ended.get(entry, entry) for entry in entries]
    write_record(record, entries)
    return entries


def read_record(path: Path) -> list[Entry]:
    """The entries of a record in the order in which they were sent; none where there is no file.

    Raises:
        UserError: another kind of table.
    """
    if not path.is_file():
        return []
    names = [field.name for field in fields(Entry)]
    with open(path, encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        rows = list(table)
    if table.fieldnames != names or any(None in row or None in row.values() for row in rows):
        raise UserError(f"{path}: no record of entries; its columns must be {','.join(names)}. Move the file away")
    return [Entry(**row) for row in rows]


def write_record(path: Path, entries: list[Entry]) -> None:
    """Writes the record of entries as CSV."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Entry)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(entry) for entry in entries)
    write_text(path, text.getvalue())


def find(client: Any, entry: Entry) -> Any:
    """What Kaggle lists under the entry's tag (`ApiSubmission`), or None where there is nothing.

    Raises:
        UserError: Kaggle refuses or is out of reach.
    """
    seen: set[int] = set()
    page = 1
    while True:
        with explain_faults("the list of submissions", OTHERWISE), _explain_refusal("the list of submissions"):
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
    """Uploads a file and enters it in the competition.

    Raises:
        UserError: Kaggle refuses or is out of reach, or the upload does not come whole.
    """
    said = io.StringIO()
    module = sys.modules[type(client).__module__]
    patient: Any = kaggle_client.PatientAdapter
    ordinary, module.HTTPAdapter = module.HTTPAdapter, patient  # type: ignore[attr-defined]
    try:
        with explain_faults(str(path), OTHERWISE), _explain_refusal(str(path)), contextlib.redirect_stdout(said):
            answer = client.competition_submit(str(path), description, COMPETITION, quiet=True)
    finally:
        module.HTTPAdapter = ordinary  # type: ignore[attr-defined]
    if answer.message == client.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
        # the client keeps the reason to itself but for what it prints
        reason = " ".join(said.getvalue().split()) or "its storage refuses the file"
        raise UserError(
            f"kaggle: {path}: the upload did not end well ({reason}) and nothing was submitted; check the network and "
            "run the same command again"
        )
    log.info("%s: %s", path, answer.message)


def _await_score(client: Any, entry: Entry, timeout: float, record: Path) -> tuple[Entry, str]:
    """The entry as it ended, and Kaggle's reason where the file was rejected."""
    end = time.monotonic() + timeout
    while True:
        submission = find(client, entry)
        ended = _end(entry, submission)
        if ended.status != WAITING:
            return ended, submission.error_description or ""
        if time.monotonic() + PAUSE > end:
            raise UserError(
                f"kaggle: {entry.file}: no score after {timeout:g} s. The file is submitted and stands in {record}; "
                f"the same command asks again and does not send it twice. See {COMPETITION_PAGE}/submissions"
            )
        time.sleep(PAUSE)


def _end(entry: Entry, submission: Any) -> Entry:
    """The entry with its end as Kaggle lists it (`ApiSubmission`), unchanged where it has none yet."""
    if submission is None or submission.status.name == "PENDING":
        return entry
    date = submission.date.isoformat(timespec="seconds") if submission.date else ""
    status = SCORED if submission.status.name == "COMPLETE" else REFUSED
    scores = {"public_score": submission.public_score or "", "private_score": submission.private_score or ""}
    return replace(entry, status=status, date=date, **scores)


def _refuse_rejected(entry: Entry, reason: str) -> None:
    if entry.status == REFUSED:
        raise UserError(
            f"kaggle: {entry.file}: Kaggle took the file but rejected its content ({reason or 'no reason given'}); see "
            f"{COMPETITION_PAGE}/submissions, mend the file, or try the same one with --again"
        )


@contextlib.contextmanager
def _explain_refusal(what: str) -> Iterator[None]:
    """Puts into words what refusals mean where one submits (`explain_faults` speaks of fetching)."""
    try:
        yield
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise UserError(f"kaggle: {what}: status {status} ({error}); {_remedy(status, str(error))}") from error
    except requests.RequestException as error:
        raise UserError(
            f"kaggle: {what}: Kaggle cannot be reached ({error}). Check the network or proxy and run the same command "
            "again: it looks first whether the file has arrived"
        ) from error


def _remedy(status: int, message: str) -> str:
    words = message.lower()
    rules = (
        f"accept the rules of the competition: click 'Late Submission' or 'Join' at {COMPETITION_PAGE}/rules, verify "
        f"the phone at {PHONE_PAGE}, then run this again"
    )
    closed = f"the competition takes no submissions now; {OTHERWISE}"
    if status == 401:
        return f"the credentials are not accepted; make a new token at {TOKEN_PAGE}"
    if status == 429 or "limit" in words:
        return "too many submissions or requests; wait (the daily limit ends at midnight UTC) and run this again"
    if status in (400, 403, 404) and any(word in words for word in ("closed", "ended", "deadline", "no longer")):
        return closed
    if status == 403:
        return rules
    return f"no such competition, or {closed}" if status == 404 else "run the same command again later"
