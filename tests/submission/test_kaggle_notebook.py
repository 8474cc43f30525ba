"""The packed notebook runs from its own data set and the competition's layout, and Kaggle's client takes both."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kaggle_server import KaggleServer, json_answer, point_client_at
from tiny_config import TINY_CONFIG

from nuclei.submission.kaggle_client import connect
from nuclei.submission.kaggle_notebook import CODE, WHEELS, pack_notebook
from nuclei.submission.submission import read_sizes, validate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """Folder with notebook/ and dataset/ of this repository, its configs replaced by a tiny one."""
    folder = tmp_path_factory.mktemp("packed")
    (folder / "root").mkdir()
    for name in set(CODE) - {"configs"}:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, folder / "root" / name)
    (folder / "root/configs").mkdir()
    shutil.copyfile(ROOT / "configs/image_sources.csv", folder / "root/configs/image_sources.csv")
    (folder / "root/configs/tiny.toml").write_text(
        TINY_CONFIG.format(model="", scheme="energy", steps=2, flips=1)
    )
    pack_notebook(folder / "root", folder, "Some-User", "tiny", "", "0 1")
    return folder


@pytest.mark.parametrize("unpacked", [False, True], ids=["archive as sent", "archive unpacked by Kaggle"])
def test_the_cells_run_to_a_submission_that_the_validator_accepts(packed, tmp_path, unpacked):
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT / "src"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    competition, dataset = tmp_path / "input/competitions/bowl", tmp_path / "input/nuclei-code"
    generate = [
        sys.executable,
        ROOT / "scripts/generate.py",
        "--out",
        competition,
        "--train",
        "8",
        "--test",
        "2",
    ]
    subprocess.run(list(map(str, generate)), check=True, env=environment, capture_output=True)
    shutil.copytree(packed / "dataset", dataset)
    if unpacked:
        shutil.unpack_archive(dataset / "nuclei.zip", dataset / "nuclei")
        (dataset / "nuclei.zip").unlink()
    (tmp_path / "working").mkdir()
    cells = json.loads((packed / "notebook/nuclei.ipynb").read_text())["cells"]
    source = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    source = source.replace("/kaggle/", f"{tmp_path}/").replace("/tmp/nuclei", f"{tmp_path}/scratch")
    del environment["PYTHONPATH"]
    answer = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env=environment)
    assert answer.returncode == 0, (answer.stdout + answer.stderr)[-3000:]
    validate(tmp_path / "working/submission.csv", read_sizes(tmp_path / "scratch/data/processed/index.csv"))
    assert "[tiny](tiny.csv)" in answer.stdout


def test_an_input_that_is_not_attached_is_named(packed, tmp_path):
    cells = json.loads((packed / "notebook/nuclei.ipynb").read_text())["cells"]
    source = "".join(cells[2]["source"]).replace("/kaggle/", f"{tmp_path}/")
    answer = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert answer.returncode == 1
    assert "stage1_train.zip" in answer.stderr
    assert "attach the competition" in answer.stderr


def test_the_clients_own_checks_take_the_notebook(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    save = "POST /v1/kernels.KernelsApiService/SaveKernel"
    with KaggleServer() as server:
        server.routes[save] = lambda _: json_answer({"ref": "/code/some-user/nuclei", "versionNumber": 1})
        point_client_at(server, monkeypatch, tmp_path, server.token)
        connect("upload the folder by hand").kernels_push(str(packed / "notebook"))
        (request,) = server.seen(save)
    sent = request.json()
    assert sent["slug"] == "some-user/nuclei"
    assert sent["enableGpu"] is True
    assert not sent.get("enableInternet", False)
    assert sent["datasetDataSources"] == ["some-user/nuclei-code"]
    assert sent["competitionDataSources"] == ["data-science-bowl-2018"]
    assert "does not resolve" not in capsys.readouterr().out


def test_wheels_are_pinned(packed):
    lines = (packed / "dataset/wheels.txt").read_text().split()
    assert [line.partition("==")[0] for line in lines] == list(WHEELS.values())
    assert all(line.partition("==")[2] for line in lines)


@pytest.mark.parametrize(
    ("user", "members", "message"),
    [
        ("", "unet_small", "set KAGGLE_USER=<name>"),
        ("me", "unet_smal", "unet_smal.toml: no such config; did you mean unet_small?"),
        ("me", "fpn", r"fpn.toml: model.weights = 'imagenet' is downloaded, and the notebook has no internet"),
    ],
)
def test_what_cannot_run_there_is_refused(tmp_path, user, members, message):
    with pytest.raises(ValueError, match=message):
        pack_notebook(ROOT, tmp_path, user, members, "", "0")
