"""The real kaggle client against a local server: every failure gets a clear error."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kaggle_server import DATE, SERVICE, Answer, KaggleServer, point_client_at
from sample_archives import TEST_ZIP, TRAIN_ZIP, assert_whole, corrupt, make_files, make_zip

from nuclei.data.download import download
from nuclei.errors import DamagedArchiveError
from nuclei.submission import kaggle_client

CALL = SERVICE + "DownloadDataFile"
STORAGE = "GET /storage/stage1_train.zip"


@pytest.fixture
def kaggle(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleServer]:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with KaggleServer() as stand_in:
        stand_in.files = {"stage1_train.zip": TRAIN_ZIP, "stage1_test.zip": TEST_ZIP}
        point_client_at(stand_in, monkeypatch, tmp_path_factory.mktemp("home"), stand_in.token)
        yield stand_in


def test_both_archives_are_fetched(
    tmp_path: Path, kaggle: KaggleServer, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = download("kaggle", tmp_path)
    assert_whole(tmp_path)
    assert "kaggle:data-science-bowl-2018/stage1_train.zip" in manifest.read_text()
    assert [request.json()["fileName"] for request in kaggle.seen(CALL)] == [
        "stage1_train.zip",
        "stage1_test.zip",
    ]
    assert capsys.readouterr().out == ""


def test_wrong_bytes_that_the_client_takes_for_good_are_fetched_again(
    tmp_path: Path, kaggle: KaggleServer
) -> None:
    kaggle.faults[STORAGE] = [Answer(200, corrupt(TRAIN_ZIP), {"Last-Modified": DATE})]
    download("kaggle", tmp_path)
    assert_whole(tmp_path)
    assert len(kaggle.seen(STORAGE)) == 2


def test_wrong_bytes_twice_are_an_error_and_do_not_stay(tmp_path: Path, kaggle: KaggleServer) -> None:
    kaggle.files["stage1_train.zip"] = corrupt(TRAIN_ZIP)
    with pytest.raises(DamagedArchiveError, match=r"train00.png is damaged"):
        download("kaggle", tmp_path)
    assert len(kaggle.seen(STORAGE)) == 2
    assert not list(tmp_path.rglob("*.zip"))


@pytest.mark.parametrize("start", [3000, 2000], ids=["same length", "another length"])
def test_answer_to_a_range_that_does_not_continue_is_found_after_the_client(
    tmp_path: Path, kaggle: KaggleServer, start: int
) -> None:
    other = make_zip(make_files("stage1_train", seed=300))
    assert len(other) == len(TRAIN_ZIP)
    cut = Answer(200, TRAIN_ZIP, {"ETag": '"1"'}, cut=3000)
    kaggle.faults[STORAGE] = [cut, Answer(206, other[start:])]
    download("kaggle", tmp_path)
    assert_whole(tmp_path)
    assert len(kaggle.seen(STORAGE)) == 3


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            403,
            r"https://www.kaggle.com/competitions/data-science-bowl-2018/rules, verify the phone at https://www",
        ),
        (401, r"the credentials are not accepted; make a new token at https://www.kaggle.com/settings/api"),
        (404, "no such competition or file"),
        (429, "this may last 30 minutes or more"),
        (500, r"status 500 .*try again later, or take --source bbbc"),
    ],
)
@pytest.mark.parametrize("route", [CALL, STORAGE], ids=["call", "storage"])
def test_refusal_is_put_into_words(
    tmp_path: Path, kaggle: KaggleServer, route: str, status: int, message: str
) -> None:
    kaggle.faults[route] = [Answer(status)]
    with pytest.raises(ValueError, match=message) as caught:
        download("kaggle", tmp_path)
    assert "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("token", ["", "revoked-token"])
def test_missing_credentials_do_not_end_the_process(
    tmp_path: Path,
    kaggle: KaggleServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    token: str,
) -> None:
    point_client_at(kaggle, monkeypatch, tmp_path / "home", token)
    with pytest.raises(ValueError, match=r"no credentials that work. .*or take --source bbbc"):
        download("kaggle", tmp_path / "raw")
    assert capsys.readouterr().out == ""


def test_older_credentials_work_too(
    tmp_path: Path, kaggle: KaggleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    monkeypatch.setenv("KAGGLE_USERNAME", kaggle.user)
    monkeypatch.setenv("KAGGLE_KEY", kaggle.token)
    download("kaggle", tmp_path)
    assert_whole(tmp_path)


def test_unreachable_kaggle_is_a_fault_of_the_network(tmp_path: Path, kaggle: KaggleServer) -> None:
    kaggle.__exit__()
    with pytest.raises(ValueError, match="Kaggle cannot be reached"):
        download("kaggle", tmp_path)


def test_silent_kaggle_is_not_waited_for_for_ever(
    tmp_path: Path, kaggle: KaggleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kaggle_client, "TIMEOUT", (1.0, 0.3))
    kaggle.faults[CALL] = [Answer(200, delay=5.0)]
    with pytest.raises(ValueError, match=r"Kaggle cannot be reached .*timed out"):
        download("kaggle", tmp_path)


def test_package_that_does_not_import_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kaggle.api.kaggle_api_extended", None)
    with pytest.raises(
        ValueError, match=r"the package does not import .*run `pip install -r requirements.txt`"
    ):
        download("kaggle", tmp_path)
