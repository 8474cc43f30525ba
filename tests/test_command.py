"""The `nuclei` command and what the package offers at its top."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import nuclei
from nuclei.command import main
from nuclei.inference.named_weights import find_weights
from nuclei.inference.weights import SHIPPED, find_best

ROOT = Path(__file__).parents[1]


def test_the_version_is_that_of_the_package():
    assert nuclei.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_python_m_nuclei_is_the_command():
    command = [sys.executable, "-m", "nuclei", "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT / "src")
    assert answer.stdout.strip() == f"nuclei {nuclei.__version__}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pixel-size", "325"], "PIXEL_SIZE=325.0: expected micrometres a pixel"),
        (["--pixel-size", "nan"], "PIXEL_SIZE=nan: expected"),
        (["--pixel-size", "big"], "PIXEL_SIZE=big: expected a number"),
        (["--device", "gpu"], "DEVICE=gpu: expected auto, cpu, cuda"),
        (["--channel", "0"], "channel 0: give a whole number, counted from 1"),
        (["--max-pixels", "0"], "MAX_PIXELS=0: expected a whole number above 0"),
        (["--scale", "0"], "SCALE=0.0: expected a number"),
        (["--min-area", "5mm"], "MIN_AREA=5mm: expected pixels, such as 40, or square micrometres"),
        (["--max-area", "0"], "MAX_AREA=0: expected pixels"),
        (["--min-area", "9", "--max-area", "8"], "MIN_AREA=9 pixels is more than MAX_AREA=8 pixels"),
    ],
)
def test_an_impossible_setting_is_one_line_before_anything_is_read(tmp_path, capsys, options, said):
    assert main(["segment", str(tmp_path / "none"), str(tmp_path / "out"), *options]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


def test_a_missing_folder_is_one_line(tmp_path, capsys):
    assert main(["segment", str(tmp_path / "none"), str(tmp_path / "out")]) == 1
    assert "no such folder or file" in capsys.readouterr().err


def test_info_says_what_weights_are(capsys):
    assert main(["info", "encoder_resunet"]) == 0
    said = capsys.readouterr().out
    assert "fold_0.safetensors: encoder_resunet" in said
    assert "CC0" in said


def test_unknown_weights_are_refused_with_the_known_names():
    with pytest.raises(ValueError, match=r"no such weights.*encoder_resunet"):
        find_weights("resnet")


def test_without_a_checkout_the_packaged_network_is_found(tmp_path):
    shipped = next(SHIPPED.glob("*/*.safetensors"))
    packaged = tmp_path / "weights" / "default.safetensors"
    packaged.parent.mkdir()
    packaged.write_bytes(shipped.read_bytes())
    assert find_best(tmp_path / "none", packaged.parent) == packaged
    with pytest.raises(ValueError, match="no weights there"):
        find_best(tmp_path / "none", tmp_path / "none")


def test_a_network_is_loaded_by_name_as_a_module():
    import torch

    network = nuclei.load("encoder_resunet")
    assert isinstance(network, torch.nn.Module)
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 96)).shape == (1, 3, 64, 96)


def test_measurements_are_a_table():
    label_map = np.zeros((20, 30), np.int32)
    label_map[4:8, 10:20] = 1
    table = nuclei.measure(label_map, label_map * 7, (0.5, 0.25))
    assert table.loc[0, "area_um2"] == 5
    assert table.loc[0, "intensity_mean"] == 7
