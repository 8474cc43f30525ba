"""The packed notebook runs from its own data set; Kaggle's client accepts both."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from final_set import write_final_set
from kaggle_server import KaggleServer, json_answer, point_client_at
from script_runs import run_script
from tiny_config import TINY_CONFIG
from warm_python import WarmPython

from nuclei.inference.weights import list_files
from nuclei.submission.kaggle_client import connect
from nuclei.submission.kaggle_notebook import CODE, WHEELS, pack_training
from nuclei.submission.submission import read_sizes, validate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """This repository, its configs replaced by a tiny one and without weights in the package."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "root").mkdir()
    for name in set(CODE) - {"configs"}:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, folder / "root" / name)
    shutil.rmtree(folder / "root/src/nuclei/weights", ignore_errors=True)
    (folder / "root/configs").mkdir()
    shutil.copyfile(ROOT / "configs/image_sources.csv", folder / "root/configs/image_sources.csv")
    for name in ("tiny", "encoder_resunet", "resunet_wide"):  # also under the names of the Makefile's MEMBERS
        config = TINY_CONFIG.format(model="", scheme="energy", steps=2, flips=1)
        (folder / f"root/configs/{name}.toml").write_text(config)
    return folder / "root"


@pytest.fixture(scope="module")
def packed(root, tmp_path_factory) -> Path:
    """Folder with notebook/ and dataset/ of the notebook that trains."""
    folder = tmp_path_factory.mktemp("packed")
    pack_training(root, folder, "Some-User", "tiny", "", "0 1")
    return folder


def code_of(folder: Path, place: Path, last: int | None = None) -> str:
    """The code cells up to a `last` one as one program, with folders below `place` for Kaggle's."""
    cells = json.loads((folder / "notebook/nuclei.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    source = "\n\n".join(code[:last])
    return source.replace("/kaggle/", f"{place}/").replace("/tmp/nuclei", f"{place}/scratch")


def run_on_kaggle(
    folder: Path, place: Path, python: str | Path = sys.executable
) -> subprocess.CompletedProcess[str]:
    """Runs the cells as Kaggle would, scripts by `python`; `place` has input/, gets working/."""
    (place / "working").mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONPATH", None)
    source = f"import sys\nsys.executable = {str(python)!r}\n{code_of(folder, place)}"
    command = [sys.executable, "-c", source]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> Path:
    """Folder of the competition's archives."""
    folder = tmp_path_factory.mktemp("archives")
    assert run_script("generate.py", "--out", folder, "--train", 8, "--test", 2).returncode == 0
    return folder


@pytest.fixture
def competition(archives, tmp_path) -> Path:
    """The archives where Kaggle mounts them, below `tmp_path`."""
    return shutil.copytree(archives, tmp_path / "input/competitions/bowl")


def test_the_cells_run_to_a_submission_that_the_validator_accepts(packed, tmp_path, competition):
    """Its scripts are forks of one process with the packed code; the other's start one by one."""
    shutil.copytree(packed / "dataset", tmp_path / "input/nuclei-code")
    shutil.unpack_archive(packed / "dataset/nuclei.zip", tmp_path / "packed")
    with WarmPython(tmp_path / "packed/src") as warm:
        answer = run_on_kaggle(packed, tmp_path, warm.command)
    assert answer.returncode == 0, (answer.stdout + answer.stderr)[-3000:]
    validate(tmp_path / "working/submission.csv", read_sizes(tmp_path / "scratch/data/processed/index.csv"))
    assert "[tiny](tiny.csv)" in answer.stdout


def test_of_an_archive_that_kaggle_unpacked_the_cells_run_the_same_code(packed, tmp_path, competition):
    dataset = tmp_path / "input/nuclei-code/nuclei"
    shutil.unpack_archive(packed / "dataset/nuclei.zip", dataset)
    source = code_of(packed, tmp_path, last=2)
    answer = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    with zipfile.ZipFile(packed / "dataset/nuclei.zip") as archive:
        sent = {name: archive.read(name) for name in archive.namelist()}
    code = tmp_path / "scratch/code"
    assert {
        str(path.relative_to(code)): path.read_bytes() for path in code.rglob("*") if path.is_file()
    } == sent


@pytest.fixture(scope="module")
def predicting(root, tiny_weights, tmp_path_factory) -> Path:
    """Folder with notebook/ and dataset/ of the notebook that predicts the final set."""
    folder = tmp_path_factory.mktemp("predicting")
    settings = ["--user", "me-too", "--weights", tiny_weights, "--stage", "stage2"]
    answer = run_script("pack_notebook.py", "--root", root, "--out", folder, *settings)
    assert answer.returncode == 0, answer.stderr
    return folder


def test_shipped_weights_predict_the_final_set_without_a_training(predicting, tmp_path):
    sizes = write_final_set(tmp_path / "input/bowl")
    shutil.copytree(predicting / "dataset", tmp_path / "input/nuclei-weights")
    answer = run_on_kaggle(predicting, tmp_path)
    assert answer.returncode == 0, (answer.stdout + answer.stderr)[-3000:]
    validate(tmp_path / "working/submission.csv", sizes)
    assert not list((tmp_path / "scratch").rglob("model.pt"))
    assert {path.name for path in (tmp_path / "working").rglob("*.*")} == {"submission.csv"}


def test_the_data_set_of_the_notebook_that_predicts_holds_the_weights(predicting, tiny_weights):
    with zipfile.ZipFile(predicting / "dataset/nuclei.zip") as archive:
        packed = {name for name in archive.namelist() if name.startswith("weights/")}
        assert packed == {f"weights/{tiny_weights.name}"}
        assert archive.read(packed.pop()) == tiny_weights.read_bytes()
    kernel = json.loads((predicting / "notebook/kernel-metadata.json").read_text())
    assert (kernel["id"], kernel["dataset_sources"]) == ("me-too/nuclei-predict", ["me-too/nuclei-weights"])


def test_an_ensemble_travels_with_its_members_and_not_with_networks_of_the_package():
    names = set(list_files(ROOT / "weights/ensemble.json"))
    members = ("encoder_resunet", "encoder_resunet_external_long")
    folds = {f"{name}/fold_{fold}.safetensors" for name in members for fold in range(5)}
    assert names == {"ensemble.json", *folds}


def test_an_input_that_is_not_attached_is_named(packed, tmp_path):
    cells = json.loads((packed / "notebook/nuclei.ipynb").read_text())["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells[1:3]).replace("/kaggle/", f"{tmp_path}/")
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
        pack_training(ROOT, tmp_path, user, members, "", "0")
