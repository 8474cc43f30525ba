"""A file comes over HTTP whole or not at all, and parts of two versions are never joined."""

import errno
import gzip
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from threading import Event, Thread

import pytest
from kaggle_server import DATE, Answer, Request, StandIn, file_answer

from nuclei.data import http, http_stream
from nuclei.errors import UserError

OLD, NEW = (bytes((seed * i * i + i) % 251 for i in range(6000)) for seed in (3, 7))
ROUTE = "GET /file.zip"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits are recorded and not spent; small blocks, so small files come in many; no proxy."""
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    monkeypatch.setattr(http_stream, "CHUNK_BYTES", 100)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return waits


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn() as stand_in:
        stand_in.routes[ROUTE] = lambda request: file_answer(request, NEW)
        yield stand_in


def fetch(server: StandIn, folder: Path) -> dict[str, bytes]:
    """All files in `folder` after `file.zip` was fetched into it."""
    http.fetch(server.url + "/file.zip", folder / "file.zip")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def cut_at(size: int, content: bytes = NEW, **headers: str) -> Answer:
    return Answer(200, content, {"ETag": '"1"', **headers}, cut=size)


def test_cut_connection_goes_on_where_it_stopped(tmp_path: Path, server: StandIn) -> None:
    server.faults[ROUTE] = [cut_at(3000)]
    assert fetch(server, tmp_path) == {"file.zip": NEW}
    first, second = server.requests
    assert "range" not in first.headers
    assert second.headers["range"] == "bytes=3000-"
    assert second.headers["if-range"] == '"1"'


def test_new_attempt_goes_on_where_the_failed_one_stopped(tmp_path: Path, server: StandIn) -> None:
    server.faults[ROUTE] = [cut_at(3000), *[Answer(503)] * http.ATTEMPTS]
    with pytest.raises(ValueError, match=r"attempts without a new byte .*continues at byte 3000"):
        fetch(server, tmp_path)
    assert not (tmp_path / "file.zip").exists()
    server.requests.clear()
    assert fetch(server, tmp_path) == {"file.zip": NEW}
    assert len(server.requests) == 1
    assert server.requests[0].headers["range"].startswith("bytes=")


def test_part_that_is_complete_is_not_asked_for_again(tmp_path: Path, server: StandIn) -> None:
    server.faults[ROUTE] = [cut_at(3000), *[Answer(503)] * http.ATTEMPTS]
    with pytest.raises(ValueError, match="attempts"):
        fetch(server, tmp_path)
    (tmp_path / "file.zip.part").write_bytes(NEW)
    server.requests.clear()
    assert fetch(server, tmp_path) == {"file.zip": NEW}
    assert not server.requests


def test_part_of_another_address_is_not_added_to(tmp_path: Path, server: StandIn) -> None:
    server.faults["GET /other.zip"] = [cut_at(3000, OLD), *[Answer(503)] * http.ATTEMPTS]
    with pytest.raises(ValueError, match="attempts"):
        http.fetch(server.url + "/other.zip", tmp_path / "file.zip")
    assert fetch(server, tmp_path) == {"file.zip": NEW}


def ignore_if_range(request: Request) -> Answer:
    """The rest of another version."""
    return file_answer(Request(request.route, "", {"range": request.headers["range"]}, b""), NEW, '"2"')


def send_beginning(request: Request) -> Answer:
    """As many bytes as are asked for, but from the beginning."""
    size = len(NEW) - int(request.headers["range"][6:-1])
    return Answer(206, NEW[:size], {"ETag": '"1"', "Content-Range": f"bytes 0-{size - 1}/{len(NEW)}"})


@pytest.mark.parametrize(
    "second",
    [
        lambda request: Answer(200, NEW, {"ETag": '"1"'}),
        lambda request: file_answer(request, NEW, '"2"'),
        lambda request: Answer(416),
        lambda request: Answer(206, NEW[3000:], {"ETag": '"1"'}),
        send_beginning,
        lambda request: Answer(206, NEW[3000:], {"ETag": '"1"', "Content-Range": "bytes 3000-5999/9999"}),
        ignore_if_range,
    ],
    ids=[
        "range ignored",
        "changed",
        "416",
        "no range named",
        "another range",
        "another size",
        "another version",
    ],
)
def test_part_is_never_joined_with_bytes_that_do_not_continue_it(
    tmp_path: Path, server: StandIn, second: Callable[[Request], Answer]
) -> None:
    server.faults[ROUTE] = [cut_at(3000, OLD)]
    good = server.routes[ROUTE]
    server.routes[ROUTE] = lambda request: second(request) if len(server.requests) == 2 else good(request)
    assert fetch(server, tmp_path) == {"file.zip": NEW}
    assert len(server.requests) <= 3


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"1"'}])
def test_server_that_names_no_version_is_asked_from_the_start(
    tmp_path: Path, server: StandIn, headers: dict[str, str]
) -> None:
    server.faults[ROUTE] = [Answer(200, NEW, headers, cut=3000)]
    assert fetch(server, tmp_path) == {"file.zip": NEW}
    assert [request.headers.get("range") for request in server.requests] == [None, None]


def test_date_is_used_where_the_tag_is_weak(tmp_path: Path, server: StandIn) -> None:
    server.faults[ROUTE] = [cut_at(3000, **{"Last-Modified": DATE, "ETag": 'W/"1"'})]
    assert fetch(server, tmp_path) == {"file.zip": NEW}
    assert server.requests[1].headers["if-range"] == DATE


def test_size_need_not_be_known(tmp_path: Path, server: StandIn) -> None:
    server.faults[ROUTE] = [Answer(200, NEW, sized=False)]
    assert fetch(server, tmp_path) == {"file.zip": NEW}


def test_server_that_cuts_every_time_is_given_up(tmp_path: Path, server: StandIn) -> None:
    server.routes[ROUTE] = lambda request: cut_at(3000)
    with pytest.raises(ValueError, match="6 attempts without a new byte"):
        fetch(server, tmp_path)
    assert len(server.requests) == 7  # the first one brought something


def test_passing_faults_of_the_server_are_waited_out(
    tmp_path: Path, server: StandIn, waits: list[float]
) -> None:
    server.faults[ROUTE] = [Answer(500), Answer(503), Answer(429, b"", {"Retry-After": "7"})]
    assert fetch(server, tmp_path) == {"file.zip": NEW}
    assert waits == [2.0, 4.0, 7.0]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(403), "answers 403 Forbidden, expected 200; it is not public"),
        (Answer(404), "answers 404 Not Found, expected 200; no such file"),
        (Answer(401), "it needs a login"),
        (Answer(429, b"", {"Retry-After": "1800"}), "asks to wait 1800 s"),
    ],
)
def test_refusal_is_said_at_once(tmp_path: Path, server: StandIn, answer: Answer, message: str) -> None:
    server.faults[ROUTE] = [answer]
    with pytest.raises(ValueError, match=message):
        fetch(server, tmp_path)
    assert len(server.requests) == 1
    assert not list(tmp_path.iterdir())


def test_silent_server_is_not_waited_for_for_ever(
    tmp_path: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "TIMEOUT", (1.0, 0.2))
    server.faults[ROUTE] = [Answer(200, NEW, delay=5.0)]
    assert fetch(server, tmp_path) == {"file.zip": NEW}


@pytest.fixture
def dripping() -> Iterator[Callable[[bytes, bytes], str]]:
    """A server that sends `quick` at once, then `slow` again and again, a byte every 0.01 s."""
    listener, ended = socket.create_server(("127.0.0.1", 0)), Event()

    def serve(quick: bytes, slow: bytes) -> None:
        while True:
            try:
                connection = listener.accept()[0]
                with connection:
                    connection.sendall(quick)
                    for byte in cycle(slow):
                        if ended.wait(0.01):
                            return
                        connection.sendall(bytes([byte]))
            except OSError:
                if ended.is_set():
                    return

    def start(quick: bytes, slow: bytes) -> str:
        Thread(target=serve, args=(quick, slow), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/file.zip"

    yield start
    ended.set()
    listener.close()


@pytest.mark.parametrize("quick", [b"", b"HTTP/1.1 200 OK\r\nX-Header: "], ids=["status line", "header"])
def test_a_head_that_comes_byte_by_byte_is_given_up_after_a_stated_time(
    tmp_path: Path, dripping: Callable[[bytes, bytes], str], quick: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"6 attempts without a new byte \(last: no whole head .* within 0 s"):
        http.fetch(dripping(quick, b"H"), tmp_path / "file.zip")


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 6000",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Encoding: gzip",
    ],
)
def test_a_body_that_comes_byte_by_byte_is_given_up_after_a_stated_time(
    tmp_path: Path, dripping: Callable[[bytes, bytes], str], head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "PATIENCE", 0.2)
    monkeypatch.setattr(http_stream, "LATE", 0.1)
    url = dripping(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode(), b"0")
    with pytest.raises(UserError, match=r"\d+ bytes came in 0 s; check the network"):
        http.fetch(url, tmp_path / "file.zip")


def test_what_a_server_says_is_shown_in_short_and_cannot_steer_the_terminal(
    tmp_path: Path, dripping: Callable[[bytes, bytes], str]
) -> None:
    head = b"HTTP/1.1 403 \x1b[2J" + b"no" * 5000 + b"\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(UserError, match=r"answers 403 \[2Jno.*, expected 200") as refused:
        http.fetch(dripping(head, b"0"), tmp_path / "file.zip")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


def test_a_size_of_a_chunk_without_end_does_not_fill_the_memory(
    tmp_path: Path, dripping: Callable[[bytes, bytes], str]
) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with pytest.raises(UserError, match=r"6 attempts without a new byte .*reading chunk size"):
        http.fetch(dripping(head + b"0" * 70_000, b"0"), tmp_path / "file.zip")


def test_the_body_of_a_redirect_is_not_waited_for(
    tmp_path: Path, server: StandIn, dripping: Callable[[bytes, bytes], str]
) -> None:
    head = f"HTTP/1.1 302 Found\r\nLocation: {server.url}/file.zip\r\n\r\n"
    http.fetch(dripping(head.encode(), b"0"), tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == NEW


@pytest.mark.parametrize("size", [None, 100])
def test_a_packed_answer_is_unpacked_or_asked_for_again(
    tmp_path: Path, server: StandIn, size: int | None
) -> None:
    packed = gzip.compress(NEW)
    server.faults[ROUTE] = [Answer(200, packed[:size], {"Content-Encoding": "gzip"})]
    assert fetch(server, tmp_path) == {"file.zip": NEW}
    assert len(server.requests) == (1 if size is None else 2)


def test_a_connection_that_drops_every_few_bytes_gets_there(tmp_path: Path, server: StandIn) -> None:
    server.routes[ROUTE] = lambda request: replace(file_answer(request, NEW), cut=250)
    assert fetch(server, tmp_path) == {"file.zip": NEW}
    assert [request.headers.get("range") for request in server.requests[:3]] == [
        None,
        "bytes=250-",
        "bytes=500-",
    ]


def test_a_download_without_progress_is_given_up_after_a_stated_time(
    tmp_path: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10**6, 50))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    server.routes[ROUTE] = lambda request: replace(file_answer(request, NEW), cut=10)
    with pytest.raises(
        UserError, match=r"\d+ bytes came in [67]\d\d s; check the network .* continues at byte \d+"
    ):
        fetch(server, tmp_path)
    assert len(server.requests) < 20


@pytest.mark.parametrize("sized", [True, False])
def test_a_file_that_is_too_large_is_refused(
    tmp_path: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch, sized: bool
) -> None:
    monkeypatch.setattr(http, "MAX_BYTES", 2000)
    server.routes[ROUTE] = lambda request: Answer(200, NEW, sized=sized)
    with pytest.raises(UserError, match=r"file\.zip: (more than 2000 bytes|6000 bytes, expected at most 2000)"):
        fetch(server, tmp_path)
    assert len(server.requests) == 1


@pytest.mark.parametrize("location", ["http://[bad", "nowhere://x", "http://", "/file.zip"])
def test_a_bad_redirect_is_named(tmp_path: Path, server: StandIn, location: str) -> None:
    server.routes[ROUTE] = lambda request: Answer(302, b"", {"Location": location})
    with pytest.raises(UserError, match=r"/file\.zip: cannot be downloaded .*check the address"):
        fetch(server, tmp_path)


def test_a_content_length_of_thousands_of_digits_counts_as_none(tmp_path: Path, server: StandIn) -> None:
    server.routes[ROUTE] = lambda request: Answer(200, NEW, {"Content-Length": "9" * 5000}, sized=False)
    assert fetch(server, tmp_path) == {"file.zip": NEW}


def test_a_full_disk_is_said_with_the_file(
    tmp_path: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nuclei.data.http.os.write", fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*file\.zip\.part'"):
        fetch(server, tmp_path)


def test_a_damaged_note_starts_the_download_again(tmp_path: Path, server: StandIn) -> None:
    (tmp_path / "file.zip.part").write_bytes(OLD[:50])
    (tmp_path / "file.zip.part.json").write_text("{")
    assert fetch(server, tmp_path) == {"file.zip": NEW}


def test_unreachable_server_is_said(tmp_path: Path, server: StandIn) -> None:
    server.__exit__()
    with pytest.raises(ValueError, match=r"6 attempts without a new byte .*Check the network"):
        fetch(server, tmp_path)


def test_address_is_shown_without_its_secrets() -> None:
    shown = http.public_url("https://me:secret@example.org:8080/a/b.zip?signature=secret#secret")
    assert shown == "https://example.org:8080/a/b.zip"
