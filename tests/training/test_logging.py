"""TensorBoard's writer tells its errors like all others."""

import errno
import os
from types import SimpleNamespace

import pytest

from nuclei.training.logging import open_events


def test_a_full_disk_is_one_error_that_names_the_folder(tmp_path, monkeypatch, capsys):
    def refuse(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", refuse)
    events = open_events(SimpleNamespace(is_global_zero=True), tmp_path, 0)
    with pytest.raises(OSError, match=f"No space left on device: .{tmp_path}"), events as writer:  # noqa: PT012
        for step in range(100):
            writer.add_scalar("loss", 1.0, step)
            writer.flush()
    assert "Traceback" not in capsys.readouterr().err
