"""Kaggle through its own client, with its faults put into words and its answers not believed.

The client (package `kaggle`) signs in while it is imported, prints to standard output, waits for ever on a silent
connection and leaves the process when there are no credentials. All of that stays in here.
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

from nuclei.errors import DamagedArchiveError, UserError

COMPETITION = "data-science-bowl-2018"
COMPETITION_PAGE = f"https://www.kaggle.com/competitions/{COMPETITION}"
TOKEN_PAGE = "https://www.kaggle.com/settings/api"
PHONE_PAGE = "https://www.kaggle.com/settings"
FETCH_OTHERWISE = "take --source bbbc, which holds the same data without an account"
"""What a user can do without Kaggle who wants the data."""
# Seconds to wait for a connection and for the next bytes.
TIMEOUT = (15.0, 120.0)


def connect(otherwise: str) -> Any:
    """The client (`kaggle.api.kaggle_api_extended.KaggleApi`), signed in; `otherwise` is as in `explain_faults`.

    Raises:
        UserError: the package does not import, there are no credentials, or Kaggle does not take them.
    """
    with explain_faults("signing in", otherwise), contextlib.redirect_stdout(io.StringIO()):
        try:
            from kaggle.api.kaggle_api_extended import KaggleApi
        except ImportError as error:
            raise UserError(
                f"kaggle: the package does not import ({error}); run `pip install -r requirements.txt`"
            ) from error
        client = KaggleApi()
        build = client.build_kaggle_client
        client.build_kaggle_client = lambda: _give_up_in_time(build())
        client.authenticate()
    return client


def download_file(name: str, path: Path) -> None:
    """Fetches a file of the competition to `path`, which appears only when the client has ended well.

    What has come may still be wrong: the client compares lengths only. Check it, and fetch it again if it is bad.

    Raises:
        DamagedArchiveError: the length is not the one announced.
        UserError: Kaggle refuses, or cannot be reached.
    """
    client = connect(FETCH_OTHERWISE)
    quiet = not sys.stderr.isatty()
    # Always an empty folder: the client takes a file that is there for good, or adds to it.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        with explain_faults(f"{name} of {COMPETITION}", FETCH_OTHERWISE), contextlib.redirect_stdout(io.StringIO()):
            try:
                client.competition_download_file(COMPETITION, name, path=folder, force=True, quiet=quiet)
            except requests.RequestException:
                raise  # some of these are also a ValueError
            except ValueError as error:
                raise DamagedArchiveError(f"kaggle: {name} did not come whole ({error}); run this again") from error
        found = sorted(Path(folder).iterdir())
        if len(found) != 1:
            raise UserError(
                f"kaggle: expected the one file {name}, the client left {[file.name for file in found]}; "
                f"{FETCH_OTHERWISE}"
            )
        os.replace(found[0], path)


@contextlib.contextmanager
def explain_faults(what: str, otherwise: str) -> Iterator[None]:
    """Turns what the client raises, also its way of leaving the process, into a ValueError that says what to do.

    `what` was being done; `otherwise` is what the user can do where Kaggle stays out of reach.
    """
    try:
        yield
    except SystemExit as error:
        raise UserError(
            f"kaggle: {what}: no credentials that work. Make a token at {TOKEN_PAGE} and put it into "
            "~/.kaggle/access_token or the variable KAGGLE_API_TOKEN (an older kaggle.json works too); "
            f"or {otherwise}"
        ) from error
    except requests.HTTPError as error:
        raise UserError(f"kaggle: {what}: {_explain_status(error, otherwise)}") from error
    except requests.RequestException as error:
        raise UserError(
            f"kaggle: {what}: Kaggle cannot be reached ({error}). Check the network or proxy "
            f"and run the same command again, or {otherwise}"
        ) from error


def _explain_status(error: requests.HTTPError, otherwise: str) -> str:
    # compare with None: a response of an error counts as false
    status = error.response.status_code if error.response is not None else 0
    remedies = {
        401: f"the credentials are not accepted; make a new token at {TOKEN_PAGE}",
        403: f"the rules of the competition are not accepted, or the phone number is not verified: click 'Late "
        f"Submission' or 'Join' at {COMPETITION_PAGE}/rules, verify the phone at {PHONE_PAGE}, then run this again",
        404: f"no such competition or file; look at {COMPETITION_PAGE}/data",
        429: "too many requests; this may last 30 minutes or more, wait before the same command",
    }
    message = re.sub(r"\?\S+", "", str(error))  # the address of a file carries a signature
    return f"status {status} ({message}); {remedies.get(status, f'try again later, or {otherwise}')}"


class PatientAdapter(HTTPAdapter):
    """An adapter that waits TIMEOUT where the caller names no limit."""

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["timeout"] = kwargs.get("timeout") or TIMEOUT
        return super().send(request, *args, **kwargs)


def _give_up_in_time(kaggle: Any) -> Any:
    http = kaggle.http_client()
    http._init_session()  # does nothing where there is a session, so the adapters stay
    http._session.mount("https://", PatientAdapter())
    http._session.mount("http://", PatientAdapter())
    return kaggle
