"""The real kaggle client against a local server: a file is sent once, whatever happens."""

from pathlib import Path

import pytest
from kaggle_server import SERVICE, Answer, KaggleServer, json_answer, point_client_at
from script_runs import run_script

from nuclei.errors import UserError
from nuclei.submission import kaggle_client
from nuclei.submission import submit as submit_module
from nuclei.submission.submit import read_record, refresh, submit

ROOT = Path(__file__).parents[2]
SIZES = {"a": (4, 5), "b": (4, 5)}
START, CREATE, LIST = (
    SERVICE + call for call in ("StartSubmissionUpload", "CreateSubmission", "ListSubmissions")
)
STORAGE = "PUT /storage/upload"


class SubmissionServer(KaggleServer):
    """Takes uploads and submissions, and lists them, newest first, `page_size` at a time."""

    def __init__(self):
        super().__init__()
        self.uploaded, self.listed, self.outcome, self.page_size = b"", [], {}, 20
        self.outcome = {"status": "COMPLETE", "publicScore": "0.51", "privateScore": "0.62"}
        self.routes[START] = lambda _: json_answer({"token": "blob", "createUrl": f"{self.url}/storage/upload"})
        self.routes[STORAGE] = self._store
        self.routes[CREATE] = self._create
        self.routes[LIST] = self._list

    def add(self, description):
        row = {"ref": len(self.listed) + 1, "date": "2018-04-16T10:20:30.123Z", "description": description}
        self.listed.insert(0, row)
        return row

    def _store(self, request):
        self.uploaded = request.body
        return Answer(200)

    def _create(self, request):
        assert request.json()["blobFileTokens"] == "blob"
        row = self.add(request.json()["submissionDescription"])
        return json_answer({"message": "Successfully submitted", "ref": row["ref"]})

    def _list(self, request):
        start = (request.json().get("page", 1) - 1) * self.page_size
        rows = self.listed[start : start + self.page_size]
        return json_answer({"submissions": [row | self.outcome for row in rows]})


@pytest.fixture
def server(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(submit_module, "PAUSE", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with SubmissionServer() as stand_in:
        point_client_at(stand_in, monkeypatch, tmp_path_factory.mktemp("home"), stand_in.token)
        yield stand_in


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "unet.csv"
    path.write_text("ImageId,EncodedPixels\na,1 2\nb,\n")
    return path


@pytest.fixture
def record(tmp_path):
    return tmp_path / "kaggle.csv"


def test_scores_of_the_file_that_was_sent_stand_in_the_record(server, path, record, capsys):
    ended = submit(path, SIZES, "first, with a comma", record)
    assert (ended.public_score, ended.private_score) == ("0.51", "0.62")
    assert (ended.status, ended.date, ended.file) == ("complete", "2018-04-16T10:20:30", "unet.csv")
    assert server.uploaded == path.read_bytes()
    assert server.listed[0]["description"] == f"[{ended.sha256[:12]} 1] first, with a comma"
    assert read_record(record) == [ended]
    assert capsys.readouterr().out == ""


def test_a_file_with_a_score_is_not_sent_again_and_kaggle_not_even_asked(server, path, record):
    first = submit(path, SIZES, "", record)
    server.requests.clear()
    assert submit(path, SIZES, "another message", record) == first
    assert not server.requests


def test_another_file_is_another_entry(server, path, record):
    submit(path, SIZES, "", record)
    path.write_text("ImageId,EncodedPixels\na,1 3\nb,\n")
    submit(path, SIZES, "", record)
    assert len(server.listed) == len({row.sha256 for row in read_record(record)}) == 2


def test_again_sends_it_once_more_and_keeps_both_entries(server, path, record):
    submit(path, SIZES, "", record)
    server.outcome["privateScore"] = "0.63"
    submit(path, SIZES, "", record, again=True)
    assert [(row.number, row.private_score) for row in read_record(record)] == [("1", "0.62"), ("2", "0.63")]
    assert len(server.seen(CREATE)) == 2


def test_without_a_score_in_time_the_next_run_only_asks_even_with_again(server, path, record):
    scored, server.outcome = server.outcome, {"status": "PENDING"}
    with pytest.raises(ValueError, match=r"no score after 0.05 s.*does not send it twice"):
        submit(path, SIZES, "", record, timeout=0.05)
    assert [row.status for row in read_record(record)] == ["submitted"]
    server.outcome = scored
    assert submit(path, SIZES, "", record, again=True).status == "complete"
    assert len(server.seen(CREATE)) == len(read_record(record)) == 1


def test_a_score_that_has_come_since_is_fetched_and_nothing_sent(server, path, record):
    scored, server.outcome = server.outcome, {"status": "PENDING"}
    with pytest.raises(ValueError, match="no score after"):
        submit(path, SIZES, "first", record, timeout=0.05)
    assert refresh(record) == read_record(record)
    assert read_record(record)[0].status == "submitted"
    server.outcome = scored
    assert refresh(record)[0].private_score == "0.62"
    assert read_record(record) == refresh(record)
    assert len(server.seen(CREATE)) == 1


def test_a_score_that_cannot_be_asked_for_goes_on_waiting(server, path, record, monkeypatch, tmp_path, caplog):
    server.outcome = {"status": "PENDING"}
    with pytest.raises(ValueError, match="no score after"):
        submit(path, SIZES, "first", record, timeout=0.05)
    before = record.read_bytes()
    point_client_at(server, monkeypatch, tmp_path)
    assert [waiting.status for waiting in refresh(record)] == ["submitted"]
    assert record.read_bytes() == before
    assert "no credentials" in caplog.text


@pytest.mark.parametrize("others", [0, 45])
def test_a_run_killed_before_its_record_is_found_in_the_list_on_any_page(server, path, record, others):
    ended = submit(path, SIZES, "", record)
    record.unlink()
    for number in range(others):
        server.add(f"other {number}")
    assert submit(path, SIZES, "", record) == ended
    assert len(server.seen(CREATE)) == 1


def test_a_lost_answer_does_not_make_a_second_submission(server, path, record):
    create = server.routes[CREATE]

    def accept_and_fall_silent(request):
        create(request)
        return Answer(502)

    server.routes[CREATE] = accept_and_fall_silent
    with pytest.raises(ValueError, match="status 502"):
        submit(path, SIZES, "", record)
    assert submit(path, SIZES, "", record).status == "complete"
    assert len(server.listed) == 1


def test_a_rejected_file_is_an_error_now_and_at_the_next_run_which_sends_nothing(server, path, record):
    server.outcome = {"status": "ERROR", "errorDescription": "Unable to find 65 required key values"}
    with pytest.raises(ValueError, match=r"rejected its content \(Unable to find 65 required key values\)"):
        submit(path, SIZES, "", record)
    with pytest.raises(ValueError, match=r"rejected .*--again"):
        submit(path, SIZES, "", record)
    assert len(server.seen(CREATE)) == 1


@pytest.mark.parametrize(
    ("route", "status", "said", "message"),
    [
        (
            LIST,
            403,
            "Forbidden",
            r"accept the rules .*data-science-bowl-2018/rules, verify the phone at https://www",
        ),
        (START, 403, "You must accept this competition's rules", r"accept the rules"),
        (
            CREATE,
            400,
            "Submission deadline has passed",
            r"takes no submissions now; score the file here: `make score",
        ),
        (
            CREATE,
            403,
            "The competition has ended",
            r"\(The competition has ended\); .*takes no submissions now",
        ),
        (CREATE, 400, "Your team has used its submission limit", "wait"),
        (LIST, 401, "Unauthenticated", "make a new token at https://www.kaggle.com/settings/api"),
        (START, 429, "Too many requests", "too many submissions or requests"),
        (START, 500, "Internal error", "run the same command again later"),
    ],
)
def test_refusals_say_what_to_do_and_leave_no_record(server, path, record, route, status, said, message):
    server.faults[route] = [json_answer({"code": status, "message": said}, status)]
    with pytest.raises(ValueError, match=message):
        submit(path, SIZES, "", record)
    assert not record.exists()
    assert not server.listed


def test_a_refused_upload_submits_nothing_and_can_be_repeated(server, path, record):
    server.faults[STORAGE] = [Answer(410)]
    with pytest.raises(ValueError, match=r"the upload did not end well .* nothing was submitted"):
        submit(path, SIZES, "", record)
    assert not server.listed
    assert submit(path, SIZES, "", record).status == "complete"


def test_silent_storage_is_not_waited_for_for_ever(server, path, record, monkeypatch):
    start = server.routes[START]

    def start_and_lose_patience(request):
        monkeypatch.setattr(kaggle_client, "TIMEOUT", (1.0, 0.05))
        return start(request)

    server.routes[START] = start_and_lose_patience
    server.faults[STORAGE] = [Answer(200, delay=1.0)] * 11
    with pytest.raises(ValueError, match=r"the upload did not end well \(.*timed out"):
        submit(path, SIZES, "", record)


def test_no_network_and_no_credentials_are_said(server, path, record, monkeypatch, tmp_path):
    server.faults[LIST] = [Answer(200, b"{" * 9, {"Content-Type": "application/json"}, cut=2)]
    with pytest.raises(ValueError, match="Kaggle cannot be reached"):
        submit(path, SIZES, "", record)
    point_client_at(server, monkeypatch, tmp_path / "home")
    with pytest.raises(
        ValueError, match=r"no credentials .* a token at https://www.kaggle.com/settings"
    ) as caught:
        submit(path, SIZES, "", record)
    assert str(caught.value).count("score the file here: `make score TRUTH=stage1_solution.csv`") == 1
    assert "--source" not in str(caught.value)
    assert not record.exists()


def test_a_record_that_is_no_text_is_named(record):
    record.write_bytes(b"file,\xff\n")
    with pytest.raises(ValueError, match=r"no record of entries \(.*\)\. Move the file away"):
        read_record(record)


def test_a_faulty_submission_or_record_never_reaches_kaggle(server, path, record):
    record.write_text("name,score\nunet,1\n")
    with pytest.raises(ValueError, match="no record of entries; its columns must be file,sha256,"):
        submit(path, SIZES, "", record)
    path.write_text("ImageId,EncodedPixels\na,1 2\n")
    with pytest.raises(ValueError, match="image b: no row"):
        submit(path, SIZES, "", record)
    assert not server.requests


def test_without_the_images_a_file_of_the_right_form_is_sent(server, path, record, caplog):
    entry = submit(path, None, "first", record)
    assert entry.public_score
    assert "not checked against their sizes" in caplog.text
    path.write_text("ImageId,Pixels\na,1 2\n")
    with pytest.raises(UserError, match="ImageId,EncodedPixels"):
        submit(path, None, "first", record)


def test_the_script_refuses_a_faulty_file_in_one_line(path, tmp_path):
    index = tmp_path / "index.csv"
    index.write_text("image_id,subset,height,width\na,test,4,5\n")
    places = ["--submission", path, "--index", index, "--record", tmp_path / "kaggle.csv"]
    answer = run_script("submit.py", *places, "--message", "m")
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"error: {path}: ")
    assert "image 'b' is not one of the 1 expected" in answer.stderr
