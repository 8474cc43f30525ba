"""The stage ends with the whole data and a manifest, or leaves what was there before."""

import os
import random
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kaggle_server import Answer, StandIn, file_answer
from sample_archives import (
    TEST,
    TEST_ZIP,
    TRAIN,
    TRAIN_ZIP,
    assert_whole,
    corrupt,
    make_files,
    make_zip,
    read_tree,
    write_source,
)
from script_runs import run_script

from nuclei.data import archive
from nuclei.data.download import download
from nuclei.errors import DamagedArchiveError, UserError
from nuclei.io.files import sha256

SCRIPT = Path(__file__).parents[2] / "scripts" / "download.py"
TRAIN_ROUTE = "GET /data/stage1_train.zip"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with StandIn() as stand_in:
        stand_in.routes[TRAIN_ROUTE] = lambda request: file_answer(request, TRAIN_ZIP)
        stand_in.routes["GET /data/stage1_test.zip"] = lambda request: file_answer(request, TEST_ZIP)
        yield stand_in


def test_folder_of_zips_and_unpacked_folder_give_the_same_tree_and_tree_digest(tmp_path: Path) -> None:
    zips = write_source(tmp_path / "pack")
    unpacked = tmp_path / "elsewhere" / "pack"
    for name, files in (("stage1_train", TRAIN), ("stage1_test", TEST)):
        for path, content in files.items():
            (unpacked / name / path).parent.mkdir(parents=True, exist_ok=True)
            (unpacked / name / path).write_bytes(content)
    download(str(zips), tmp_path / "a")
    download(str(unpacked), tmp_path / "b")
    assert_whole(tmp_path / "a")
    assert_whole(tmp_path / "b")
    a, b = ((tmp_path / name / "manifest.csv").read_text().splitlines() for name in "ab")
    assert b == [line for line in a if ".zip" not in line]
    assert not (tmp_path / "a" / "stage1_train.zip").exists()


@pytest.mark.parametrize("content", [b"file,\xff\n", b"name,value\na,1\n", b""])
def test_by_a_damaged_manifest_nothing_is_used_again_and_the_download_goes_on(
    content: bytes, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "source")
    good = download(str(source), tmp_path / "raw").read_bytes()
    (tmp_path / "raw/manifest.csv").write_bytes(content)
    assert download(str(source), tmp_path / "raw").read_bytes() == good


def test_manifest_names_each_file_with_size_digest_and_source_without_a_path_of_this_machine(
    tmp_path: Path,
) -> None:
    source = write_source(tmp_path / "pack")
    (source / "stage1_solution.csv").write_text("ImageId,EncodedPixels\nx,1 2\n")
    manifest = download(str(source), tmp_path / "raw")
    trees = [archive.unpack(source / f"{name}.zip", name, tmp_path / name) for name in archive.SUBSETS]
    solution = tmp_path / "raw" / "stage1_solution.csv"
    assert manifest.read_text().splitlines() == [
        "file,bytes,sha256,source",
        f"stage1_solution.csv,{solution.stat().st_size},{sha256(solution)},pack",
        f"stage1_test,{sum(map(len, TEST.values()))},{trees[1].sha256},pack",
        f"stage1_test.zip,{len(TEST_ZIP)},{sha256(source / 'stage1_test.zip')},pack",
        f"stage1_train,{sum(map(len, TRAIN.values()))},{trees[0].sha256},pack",
        f"stage1_train.zip,{len(TRAIN_ZIP)},{sha256(source / 'stage1_train.zip')},pack",
    ]


def test_address_is_fetched_and_kept_and_its_secrets_are_not(tmp_path: Path, server: StandIn) -> None:
    address = server.url.replace("http://", "http://me:secret@") + "/data"
    manifest = download(address, tmp_path)
    assert_whole(tmp_path)
    assert (tmp_path / "stage1_train.zip").read_bytes() == TRAIN_ZIP
    assert f"{server.url}/data/stage1_train.zip" in manifest.read_text()
    assert "secret" not in manifest.read_text()


def test_second_run_fetches_nothing_and_mends_the_folder(tmp_path: Path, server: StandIn) -> None:
    download(server.url + "/data/", tmp_path)
    before = read_tree(tmp_path)
    shutil.rmtree(tmp_path / "stage1_train" / "train00")
    server.requests.clear()
    download(server.url + "/data/", tmp_path)
    assert read_tree(tmp_path) == before
    assert not [request for request in server.requests if request.route.endswith(".zip")]


def test_changed_zip_is_not_taken_for_the_one_that_came_earlier(tmp_path: Path, server: StandIn) -> None:
    download(server.url + "/data", tmp_path)
    (tmp_path / "stage1_train.zip").write_bytes(make_zip(make_files("stage1_train", seed=77)))
    download(server.url + "/data", tmp_path)
    assert_whole(tmp_path)
    assert len(server.seen(TRAIN_ROUTE)) == 2


def test_other_source_replaces_the_earlier_one_without_remains(tmp_path: Path, server: StandIn) -> None:
    server.routes["GET /data/stage1_train.zip"] = lambda r: file_answer(
        r, make_zip(make_files("stage1_train", 5, 9))
    )
    download(server.url + "/data", tmp_path / "raw")
    source = write_source(tmp_path / "pack")
    download(str(source), tmp_path / "raw")
    assert_whole(tmp_path / "raw")
    download(str(source), tmp_path / "fresh")
    assert read_tree(tmp_path / "raw") == read_tree(tmp_path / "fresh")


def test_archives_that_lie_in_the_output_folder_itself_stay_there(tmp_path: Path) -> None:
    write_source(tmp_path)
    download(str(tmp_path), tmp_path)
    download(str(tmp_path), tmp_path)
    assert_whole(tmp_path)
    assert (tmp_path / "stage1_train.zip").read_bytes() == TRAIN_ZIP


def test_output_folder_may_be_the_source_after_a_download(tmp_path: Path, server: StandIn) -> None:
    download(server.url + "/data", tmp_path)
    download(str(tmp_path), tmp_path)
    assert_whole(tmp_path)
    assert (tmp_path / "stage1_train.zip").read_bytes() == TRAIN_ZIP


@pytest.mark.parametrize(
    "bad", [TRAIN_ZIP[:2000], corrupt(TRAIN_ZIP), make_zip({"../evil/images/evil.png": b"x"})]
)
def test_bad_archive_leaves_what_was_there_and_nothing_else(tmp_path: Path, bad: bytes) -> None:
    raw = tmp_path / "raw"
    download(str(write_source(tmp_path / "good")), raw)
    before = read_tree(raw)
    source = write_source(tmp_path / "bad", make_zip(make_files("stage1_train", 5, 9)), bad)
    with pytest.raises(ValueError, match=r"stage1_test\.zip"):
        download(str(source), raw)
    assert read_tree(raw) == before
    assert not (raw / ".incoming").exists()


def test_download_cut_off_is_gone_on_with_from_the_same_source_only(tmp_path: Path, server: StandIn) -> None:
    other = make_zip(make_files("stage1_train", 2, 9))
    server.routes["GET /other/stage1_train.zip"] = lambda request: file_answer(request, other)
    with pytest.raises(ValueError, match=r"other/stage1_test\.zip: the server answers 404"):
        download(server.url + "/other", tmp_path)
    server.faults["GET /data/stage1_test.zip"] = [Answer(404)]
    with pytest.raises(ValueError, match=r"data/stage1_test\.zip: the server answers 404"):
        download(server.url + "/data", tmp_path)
    download(server.url + "/data", tmp_path)
    assert_whole(tmp_path)
    assert len(server.seen(TRAIN_ROUTE)) == 1


def test_image_in_both_subsets_is_refused(tmp_path: Path) -> None:
    both = make_zip(TEST | {"train01/images/train01.png": TRAIN["train01/images/train01.png"]})
    source = write_source(tmp_path / "pack", test=both)
    with pytest.raises(
        ValueError, match="1 images are both in stage1_train and in stage1_test, the first train01"
    ):
        download(str(source), tmp_path / "raw")


def test_repaired_annotations_are_taken_out_of_the_repository_archive(
    tmp_path: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inner = {f"fixes-master/stage1_train/{path}": content for path, content in TRAIN.items()}
    whole = make_zip(
        {"fixes-master/": b"", "fixes-master/README.rst": b"read me"} | inner, zipfile.ZIP_DEFLATED
    )
    server.routes["GET /fixes.zip"] = lambda request: Answer(200, whole, sized=False)
    server.routes["GET /data/stage1_solution.csv"] = lambda r: file_answer(r, b"ImageId,EncodedPixels,Height\n")
    monkeypatch.setattr("nuclei.data.download_sources.FIXES", server.url + "/fixes.zip")
    monkeypatch.setattr("nuclei.data.download_sources.BBBC", server.url + "/data/")
    download("fixes", tmp_path)
    assert_whole(tmp_path)
    assert (tmp_path / "stage1_solution.csv").read_bytes().startswith(b"ImageId")
    assert "3 training and 3 test images, expected 664 and 65" in caplog.text


@pytest.mark.parametrize("body", [None, b"<html>moved</html>"])
def test_missing_solution_is_said_and_does_not_stop(
    tmp_path: Path, server: StandIn, caplog: pytest.LogCaptureFixture, body: bytes | None
) -> None:
    if body is not None:
        server.routes["GET /data/stage1_solution.csv"] = lambda request: file_answer(request, body)
    download(server.url + "/data", tmp_path)
    assert_whole(tmp_path)
    assert "left out" in caplog.text
    assert not (tmp_path / "stage1_solution.csv").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "no such folder; expected bbbc, kaggle, fixes"),
        ("half", r"holds neither stage1_test.zip nor a folder stage1_test \(found \['stage1_train.zip'\]\)"),
        ("half/stage1_train.zip", "a file; expected bbbc"),
        ("https://example.org/stage1_train.zip", "remove the file name"),
    ],
)
def test_source_that_is_none_is_named_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    write_source(tmp_path / "half")
    (tmp_path / "half" / "stage1_test.zip").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        download(source, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("bad", [b"<html>busy</html>", corrupt(TRAIN_ZIP), TRAIN_ZIP[:2000]])
def test_damaged_archive_is_fetched_once_more_and_not_for_ever(
    tmp_path: Path, server: StandIn, bad: bytes
) -> None:
    server.faults[TRAIN_ROUTE] = [Answer(200, bad)]
    download(server.url + "/data", tmp_path / "a")
    assert_whole(tmp_path / "a")
    server.faults[TRAIN_ROUTE] = [Answer(200, bad)] * 2
    with pytest.raises(DamagedArchiveError):
        download(server.url + "/data", tmp_path / "b")
    assert not list((tmp_path / "b").rglob("*.zip"))


def test_an_archive_refused_as_unsafe_is_set_aside_and_not_used_again(tmp_path: Path, server: StandIn) -> None:
    unsafe = make_zip(TRAIN | {"../evil/masks/x.png": b"x"})
    good = server.routes[TRAIN_ROUTE]
    server.routes[TRAIN_ROUTE] = lambda request: file_answer(request, unsafe)
    with pytest.raises(UserError, match=r"outside of its folder.* now .*stage1_train\.zip\.refused-as-unsafe"):
        download(server.url + "/data", tmp_path)
    assert (tmp_path / "stage1_train.zip.refused-as-unsafe").read_bytes() == unsafe
    server.routes[TRAIN_ROUTE] = good
    download(server.url + "/data", tmp_path)
    assert_whole(tmp_path)


def test_two_downloads_into_one_folder_take_turns(tmp_path: Path, server: StandIn) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: download(server.url + "/data", tmp_path), range(2)))
    assert_whole(tmp_path)
    assert len(server.seen(TRAIN_ROUTE)) == 1


def download_until_killed(source: str, raw: Path, calls: int) -> bool:
    """Runs the stage in a child that kills itself at the given change on disk; whether it did."""
    child = os.fork()
    if child == 0:
        left = calls

        def count_down(function: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **kwargs: object) -> object:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)

            return call

        for name in ("replace", "unlink", "rmdir", "mkdir"):
            setattr(os, name, count_down(getattr(os, name)))
        try:
            download(source, raw)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def make_two_sources(folder: Path, server: StandIn, kind: str) -> tuple[str, str]:
    """Two sources that differ in their training image."""
    names = []
    for name, seed in (("old", 50), ("new", 0)):
        train, test = make_zip(make_files("stage1_train", 1, seed)), make_zip(make_files("stage1_test", 1))
        names.append(str(write_source(folder / name, train, test)))
        if kind == "address":
            names[-1] = f"{server.url}/{name}"
            for subset, content in (("stage1_train", train), ("stage1_test", test)):
                server.routes[f"GET /{name}/{subset}.zip"] = lambda request, c=content: file_answer(request, c)
    return names[0], names[1]


def read_visible(raw: Path) -> dict[str, bytes]:
    return {path: content for path, content in read_tree(raw).items() if not path.startswith(".")}


@pytest.mark.parametrize("kind", ["folder", "address"])
def test_kill_at_any_change_on_disk_loses_nothing_and_the_same_command_ends_in_the_same_files(
    tmp_path: Path, server: StandIn, kind: str
) -> None:
    old, new = make_two_sources(tmp_path, server, kind)
    failing = write_source(tmp_path / "failing", TRAIN_ZIP[:2000])
    download(old, tmp_path / "before")
    download(new, tmp_path / "after")
    whole = [read_tree(tmp_path / name) for name in ("before", "after")]
    trains = [{p: c for p, c in tree.items() if p.startswith("stage1_train/")} for tree in whole]
    calls, killed = 0, True
    while killed:
        raw = tmp_path / f"raw{calls}"
        shutil.copytree(tmp_path / "before", raw)
        killed = download_until_killed(new, raw, calls)
        if calls % 6 == 0:  # the run that clears up after it is killed as well
            download_until_killed(new, raw, random.Random(calls).randrange(40))
        visible = read_visible(raw)
        assert {p: c for p, c in visible.items() if p.startswith("stage1_train/")} in ({}, *trains)
        assert "manifest.csv" not in visible or visible in whole

        if calls % 4 == 0:
            with pytest.raises(ValueError, match="cut off"):
                download(str(failing), raw)
            assert read_tree(raw) in whole
        download(new, raw)
        assert read_tree(raw) == whole[1]
        calls += 2 if kind == "address" else 1
    assert calls > 30


def test_script_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    source = write_source(tmp_path / "pack", TRAIN_ZIP[:2000])
    arguments = ["--source", source, "--out", tmp_path / "raw"]
    done = run_script("download.py", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "stage1_train.zip: a zip file cut off" in done.stderr
    assert "Traceback" not in done.stderr
    write_source(source)
    assert run_script("download.py", *arguments).returncode == 0
    assert_whole(tmp_path / "raw")
