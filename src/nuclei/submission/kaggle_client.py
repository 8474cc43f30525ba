"""Kaggle through its own client (package `kaggle`), with clear errors and timeouts.

The client prints to standard output, waits without limit on a silent connection and exits the
process if there are no credentials. This module is the only place that knows.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from nuclei.errors import DamagedArchiveError, UserError

COMPETITION = "data-science-bowl-2018"
COMPETITION_PAGE = f"https://www.kaggle.com/competitions/{COMPETITION}"
TOKEN_PAGE = "https://www.kaggle.com/settings/api"
PHONE_PAGE = "https://www.kaggle.com/settings"
FETCH_OTHERWISE = "take --source bbbc, which holds the same data without an account"
"""Alternative to Kaggle for a user who wants the data."""
TIMEOUT = (15.0, 120.0)
"""Seconds to wait for a connection, and for the next bytes."""
_UPLOAD_RETRIES = Retry(total=10, backoff_factor=0.5)
# What `KaggleApi.upload_complete` returns after a complete upload (ResumableUploadResult.COMPLETE).
_UPLOADED = 1


def connect(otherwise: str) -> Any:
    """The client (`KaggleApi`), signed in; `otherwise` is as in `explain_errors`.

    Raises:
        UserError: the package cannot be imported, there are no credentials, or Kaggle rejects them.
    """
    with explain_errors("signing in", otherwise), contextlib.redirect_stdout(io.StringIO()):
        try:
            client = _timed_client_type()()
        except ImportError as error:
            raise UserError(
                f"kaggle: the package does not import ({error}); run `pip install -r requirements.txt`"
            ) from error
        client.authenticate()
    return client


class TimedAdapter(HTTPAdapter):
    """A transport adapter with TIMEOUT for requests that name no timeout."""

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["timeout"] = kwargs.get("timeout") or TIMEOUT
        return super().send(request, *args, **kwargs)


def _timed_client_type() -> Any:
    """`KaggleApi` with timeouts; a function, since importing the package signs in."""
    from kaggle.api.kaggle_api_extended import KaggleApi, ResumableUploadResult

    assert ResumableUploadResult.COMPLETE == _UPLOADED

    class TimedKaggleApi(KaggleApi):
        """Overrides the two methods of version 2.2.4 that open connections without a timeout."""

        def build_kaggle_client(self) -> Any:
            """The client of Kaggle's API, each of its requests limited by TIMEOUT.

            It has no setting for a timeout, and only its private session takes an adapter.
            """
            built = super().build_kaggle_client()
            http = built.http_client()
            http._init_session()  # keeps an existing session, so the adapters stay
            _mount(http._session, TimedAdapter())
            return built

        def upload_complete(self, path: str, url: str, quiet: bool, resume: bool = False) -> int:
            """Uploads a file to a signed address of Kaggle's storage.

            The original opens a session of its own, prints the reason of a failure and drops it.

            Raises:
                UserError: the upload failed; the message has the reason.
            """
            return _upload(Path(path), url)

    return TimedKaggleApi


def _upload(path: Path, url: str) -> int:
    with requests.Session() as session, open(path, "rb") as file:
        _mount(session, TimedAdapter(max_retries=_UPLOAD_RETRIES))
        try:
            response = session.put(url, data=file)
            response.raise_for_status()
        except requests.RequestException as error:
            raise UserError(
                f"kaggle: {path}: the upload did not end well ({_hide_signature(error)}) and "
                "nothing was submitted; check the network and run the same command again"
            ) from error
    return _UPLOADED


def _mount(session: requests.Session, adapter: HTTPAdapter) -> None:
    session.mount("https://", adapter)
    session.mount("http://", adapter)


def download_file(name: str, path: Path) -> None:
    """Downloads a file of the competition to `path`, which appears only after a complete download.

    The client compares lengths only, so the content may still be wrong: check it, and download it
    again if it is.

    Raises:
        DamagedArchiveError: the length is not the one announced.
        UserError: Kaggle refuses, or cannot be reached.
    """
    client = connect(FETCH_OTHERWISE)
    quiet = not sys.stderr.isatty()
    # Always an empty folder: the client accepts an existing file as it is, or appends to it.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        with (
            explain_errors(f"{name} of {COMPETITION}", FETCH_OTHERWISE),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            try:
                client.competition_download_file(COMPETITION, name, path=folder, force=True, quiet=quiet)
            except requests.RequestException:
                raise  # some of these are also a ValueError
            except ValueError as error:
                raise DamagedArchiveError(f"kaggle: {name} is incomplete ({error}); run this again") from error
        found = sorted(Path(folder).iterdir())
        if len(found) != 1:
            raise UserError(
                f"kaggle: expected the one file {name}, the client left "
                f"{[file.name for file in found]}; {FETCH_OTHERWISE}"
            )
        os.replace(found[0], path)


@contextlib.contextmanager
def explain_errors(what: str, otherwise: str) -> Iterator[None]:
    """Turns the client's exceptions, and its exit of the process, into a UserError with a remedy.

    `what` names what is being done, `otherwise` an alternative without Kaggle.
    """
    try:
        yield
    except SystemExit as error:
        raise UserError(
            f"kaggle: {what}: no credentials that work. Make a token at {TOKEN_PAGE} and put it "
            "into ~/.kaggle/access_token or the variable KAGGLE_API_TOKEN (an older kaggle.json "
            f"works too); or {otherwise}"
        ) from error
    except requests.HTTPError as error:
        raise UserError(f"kaggle: {what}: {_explain_status(error, otherwise)}") from error
    except requests.RequestException as error:
        raise UserError(
            f"kaggle: {what}: Kaggle cannot be reached ({error}). Check the network or proxy "
            f"and run the same command again, or {otherwise}"
        ) from error


def status_of(error: requests.HTTPError) -> int:
    """HTTP status of an error; 0 without a response."""
    # Compared with None, since a response with an error status is false.
    return error.response.status_code if error.response is not None else 0


def _explain_status(error: requests.HTTPError, otherwise: str) -> str:
    remedies = {
        401: f"the credentials are not accepted; make a new token at {TOKEN_PAGE}",
        403: f"the rules of the competition are not accepted, or the phone number is not verified: click 'Late "
        f"Submission' or 'Join' at {COMPETITION_PAGE}/rules, verify the phone at {PHONE_PAGE}, then run this again",
        404: f"no such competition or file; look at {COMPETITION_PAGE}/data",
        429: "too many requests; this may last 30 minutes or more, wait before the same command",
    }
    status = status_of(error)
    remedy = remedies.get(status, f"try again later, or {otherwise}")
    return f"status {status} ({_hide_signature(error)}); {remedy}"


def _hide_signature(error: Exception) -> str:
    """The message of an error without the query of addresses, which signs them."""
    return re.sub(r"\?\S+", "", str(error))
