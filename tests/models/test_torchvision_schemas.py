"""The adapter for a torchvision whose compiled operators do not load, in its own process."""

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
ADAPT = """
from nuclei.models.torchvision_schemas import _declared, import_torchvision
import_torchvision()
import torchvision
print(torchvision.__file__, len(_declared))
"""
NEEDS_NMS = """
import torch
import torchvision.part
@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return dets
"""


@pytest.fixture
def fake_torchvision(tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "part.py").touch()
    return package / "__init__.py"


def run(folder):
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(folder)!r}, {str(SOURCE)!r}]\n{ADAPT}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_missing_operators_are_declared_and_the_import_passes(tmp_path, fake_torchvision):
    fake_torchvision.write_text(NEEDS_NMS)
    answer = run(tmp_path)
    assert answer.stdout.split() == [str(fake_torchvision), "1"], answer.stderr[-2000:]


def test_nothing_is_declared_where_torchvision_imports_by_itself(tmp_path, fake_torchvision):
    fake_torchvision.write_text("")
    assert run(tmp_path).stdout.split() == [str(fake_torchvision), "0"]


def test_another_error_of_the_import_is_not_hidden(tmp_path, fake_torchvision):
    fake_torchvision.write_text("raise RuntimeError('a broken installation')")
    answer = run(tmp_path)
    assert answer.returncode == 1
    assert "a broken installation" in answer.stderr
