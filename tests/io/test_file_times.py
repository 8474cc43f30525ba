import os
import time

import pytest

from nuclei.io import file_times
from nuclei.io.files import write_text


@pytest.fixture(autouse=True)
def no_inputs(monkeypatch):
    monkeypatch.setattr(file_times, "_newest_input", 0.0)


def test_a_result_is_newer_than_its_inputs_though_the_clock_was_set_back(tmp_path):
    (tmp_path / "input.csv").write_text("")
    future = time.time() + 3600
    os.utime(tmp_path / "input.csv", (future, future))
    file_times.note_inputs(["--splits", str(tmp_path / "input.csv"), "\0"])
    write_text(tmp_path / "result.csv", "")
    assert (tmp_path / "result.csv").stat().st_mtime > (tmp_path / "input.csv").stat().st_mtime


def test_a_result_has_the_time_of_the_clock_otherwise(tmp_path):
    (tmp_path / "input.csv").write_text("")
    file_times.note_inputs([str(tmp_path / "input.csv")])
    write_text(tmp_path / "result.csv", "")
    assert abs((tmp_path / "result.csv").stat().st_mtime - time.time()) < 60
