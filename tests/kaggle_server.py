"""A local server for tests: answers by route, with faults on demand; and one with Kaggle's API.

The real kaggle client is pointed at it by `point_client_at`. Its calls are
`POST /v1/<service>/<method>` with a JSON body; a route is a function from a `Request` to an
`Answer`, so a test of another call adds
`server.routes["POST /v1/competitions.CompetitionApiService/ListSubmissions"] = ...`.
"""

import contextlib
import json
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

COMPETITION = "data-science-bowl-2018"
SERVICE = "POST /v1/competitions.CompetitionApiService/"
DATE = "Mon, 16 Apr 2018 00:00:00 GMT"


@dataclass(frozen=True)
class Request:
    """A request: `route` is method and path without the query; `headers` have lower-case names."""

    route: str
    query: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """A response, after `delay` seconds; after `cut` bytes of the body the connection breaks."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    delay: float = 0.0
    sized: bool = True


Route = Callable[[Request], Answer]


def json_answer(value: dict[str, Any], status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def file_answer(request: Request, content: bytes, version: str = '"1"', cut: int | None = None) -> Answer:
    """`content` as a well-behaved file server sends it: ranges, ETag, If-Range, 416."""
    headers = {"ETag": version, "Last-Modified": DATE, "Accept-Ranges": "bytes"}
    span = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
    if span is None or request.headers.get("if-range", version) != version:
        return Answer(200, content, headers, cut)
    start = int(span[1])
    if start >= len(content):
        return Answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
    headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    return Answer(206, content[start:], headers, cut)


class StandIn:
    """A local server on a free port; `requests` are all that came, `faults` go first, by route."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.faults: dict[str, list[Answer]] = {}
        self.requests: list[Request] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "StandIn":
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        if self.faults.get(request.route):
            return self.faults[request.route].pop(0)
        route = self.routes.get(request.route)
        return route(request) if route else Answer(404, b"no such place")

    def seen(self, route: str) -> list[Request]:
        return [request for request in self.requests if request.route == route]


class KaggleServer(StandIn):
    """Kaggle's API to fetch a competition's files; `files` by name, `token` is the valid one."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.user, self.token = "kaggler", "good-token"
        self.routes["POST /v1/security.OAuthService/IntrospectToken"] = self._introspect
        self.routes[SERVICE + "DownloadDataFile"] = self._download

    def answer(self, request: Request) -> Answer:
        older = b64encode(f"{self.user}:{self.token}".encode()).decode()
        signed = request.headers.get("authorization") in (f"Bearer {self.token}", f"Basic {older}")
        if request.route.startswith(SERVICE) and not signed:
            self.requests.append(request)
            return json_answer({"code": 401, "message": "Unauthenticated"}, 401)
        return super().answer(request)

    def _introspect(self, request: Request) -> Answer:
        known = request.json().get("token") == self.token
        return json_answer({"active": True, "username": self.user} if known else {"active": False})

    def _download(self, request: Request) -> Answer:
        name = request.json()["fileName"]
        if request.json()["competitionName"] != COMPETITION or name not in self.files:
            return json_answer({"code": 404, "message": "Not found"}, 404)
        # the real one sends the client on to a signed address of its storage
        self.routes[f"GET /storage/{name}"] = lambda r: file_answer(r, self.files[name])
        return Answer(302, b"", {"Location": f"{self.url}/storage/{name}?signature=secret"})


def point_client_at(server: KaggleServer, monkeypatch: pytest.MonkeyPatch, home: Path, token: str = "") -> None:
    """Lets the real client talk to `server` with `token` (none: no credentials at all).

    KAGGLE_API_ENVIRONMENT does not do it: the client of version 2.2.4 always asks for the real
    address by name.
    """
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home))
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    from kaggle.api.kaggle_api_extended import KaggleApi
    from kagglesdk import kaggle_env

    monkeypatch.setattr(KaggleApi, "config", str(home / "kaggle.json"))
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, server.url)
    if token:
        monkeypatch.setenv("KAGGLE_API_TOKEN", token)


def _make_handler(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def dispatch(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path, _, query = self.path.partition("?")
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = stand_in.answer(Request(f"{self.command} {path}", query, headers, body))
            Event().wait(answer.delay)  # not time.sleep, which tests replace
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.sized:
                self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("Connection", "close")
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client may have given up
                self.wfile.write(answer.body[: answer.cut])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "POST", "PUT"):
        setattr(Handler, f"do_{method}", Handler.dispatch)
    return Handler
