"""A package passes bioimage.io's own test, without this project and without a network."""

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from nuclei.arrays import CHANNELS
from nuclei.config import Config
from nuclei.inference.predictor import Predictor
from nuclei.inference.weights import SHIPPED
from nuclei.models.factory import build_model
from nuclei.models.weights_file import read_card
from nuclei.publishing.bioimageio import pack_network
from nuclei.publishing.onnx import ImageToMaps, trace, write_onnx
from nuclei.publishing.standalone_source import FUNCTION, join_sources

ROOT = Path(__file__).parents[2]
NETWORKS = {
    "unet": {"model": {"width": 4, "depth": 2, "packing": 2}, "intensity": {"normalisation": "z_score"}},
    "transunet": {"model": {"architecture": "transunet", "width": 4, "depth": 2, "transformer_layers": 1}},
    "encoder_unet": {"model": {"architecture": "encoder_unet", "encoder": "tu-tf_efficientnet_lite0"}},
}
CARD = read_card(SHIPPED / "encoder_resunet" / "fold_0.safetensors")


def make_predictor(seed: int = 0, **settings: object) -> Predictor:
    torch.manual_seed(seed)
    config = Config.model_validate({"name": "small", "model": {"width": 4, "depth": 1}, **settings})
    return Predictor(build_model(config.model, CHANNELS, pretrained=False), config, torch.device("cpu"), None)


@pytest.fixture(scope="module", autouse=True)
def _libraries() -> None:
    """Imported by the process that runs this file, not by all that collect it: it takes seconds."""
    pytest.importorskip(
        "bioimageio.core", reason="bioimageio.core is not installed: pip install --editable '.[publish]'"
    )
    pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def onnx(_libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of `make_predictor()`."""
    predictor = make_predictor()
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    write_onnx(path, trace(predictor.model, predictor.config), predictor.config)
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOIMAGEIO_CACHE_PATH", str(tmp_path / "cache"))


def test_the_package_passes_the_tool_away_from_the_project_and_the_network(tmp_path: Path, onnx: Path) -> None:
    package = tmp_path / "bioimageio.zip"
    pack_network(make_predictor(), CARD, onnx, package)
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | nowhere
    # in place of the project's own package, one that cannot be imported
    (tmp_path / "nuclei.py").write_text("raise ImportError('the package must not need it')")
    answer = subprocess.run(
        [sys.executable, "-m", "bioimageio.core", "test", str(package)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    with zipfile.ZipFile(package) as archive:
        names = set(archive.namelist())
        page = archive.read("README.md").decode()
    assert {"rdf.yaml", "network.pt", "network.py", "network.onnx", "test_input.npy", "cover.png"} <= names
    assert f"scores {CARD.score:.4f} out of fold" in page


def test_a_graph_of_another_network_is_found_out_and_nothing_is_left(tmp_path: Path, onnx: Path) -> None:
    with pytest.raises(ValueError, match=r"bioimage.io's test says .*onnx"):
        pack_network(make_predictor(seed=1), None, onnx, tmp_path / "out" / "bioimageio.zip")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_single_file_rebuilds_the_network_from_its_settings_and_needs_no_module_of_ours(name: str) -> None:
    predictor = make_predictor(**NETWORKS[name])
    expected = ImageToMaps(predictor.model, predictor.config)
    source = join_sources()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert "nuclei" not in ast.unparse(node)
    namespace: dict[str, object] = {"__name__": "network"}
    exec(compile(source, "network.py", "exec"), namespace)
    network = namespace[FUNCTION](config=predictor.config.model_dump(mode="json"))
    network.load_state_dict(expected.state_dict())
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 67, 90)).astype(np.float32))
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(image), expected(image), rtol=0, atol=1e-5)


def test_without_a_trained_network_make_packs_the_shipped_weights(tmp_path: Path) -> None:
    command = [
        "make",
        "--no-print-directory",
        "--dry-run",
        "bioimageio",
        f"RUNS={tmp_path}",
        f"PYTHON={sys.executable}",
    ]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    out = tmp_path / "weights_encoder_resunet" / "fold_0"
    wanted = f"--checkpoint weights/encoder_resunet/fold_0.safetensors --onnx {out}/model.onnx"
    assert answer.stdout.strip().endswith(f"{wanted} --out {out}/bioimageio.zip")
