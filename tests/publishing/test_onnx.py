"""An exported network equals its checkpoint, on sizes not traced, from raw pixels."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from script_runs import run_script

from nuclei.arrays import CHANNELS
from nuclei.config import Config, IntensityConfig
from nuclei.data.intensity import window_image
from nuclei.models import efficientnet_lite
from nuclei.models.efficientnet_lite import STAGES
from nuclei.models.factory import build_model
from nuclei.publishing import onnx

ROOT = Path(__file__).parents[2]
SMALL = {"width": 4, "depth": 2}
TRANSFORMER = {"architecture": "transunet", "transformer_layers": 1, "transformer_heads": 4}
EXPERIMENTS = {
    "bilinear": {"model": SMALL | {"depth": 1}},
    "deep supervision packed": {
        "model": SMALL | {"deep_supervision": True, "in_channels": 1, "packing": 2},
    },
    "transunet with attention, transposed and packed": {
        "model": SMALL
        | TRANSFORMER
        | {"transformer_patch": 2, "upsampling": "transposed", "skip": "attention", "packing": 2},
        "intensity": {
            "window": "level",
            "window_level": 120.0,
            "window_width": 100.0,
            "normalisation": "imagenet",
        },
    },
    "smp-unet of three classes": {
        "model": {"architecture": "smp-unet", "encoder": "resnet18", "decoder_channels": (32, 16)},
        "target": {"scheme": "three_class"},
        "intensity": {"window": "none", "normalisation": "z_score"},
    },
    # its convolutions pad as TensorFlow does, by the image's size
    "encoder_unet": {"model": {"architecture": "encoder_unet", "encoder": "tu-tf_efficientnet_lite0"}},
}


@pytest.fixture(scope="module", autouse=True)
def _libraries() -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")


def make_network(name: str) -> tuple[torch.nn.Module, Config]:
    torch.manual_seed(0)
    config = Config.model_validate({"name": "small", **EXPERIMENTS[name]})
    return build_model(config.model, CHANNELS, pretrained=False).eval(), config


# the plain one is a part of the others, and the script below exports the one with deep supervision
@pytest.mark.parametrize(
    "name", [name for name in EXPERIMENTS if name not in ("bilinear", "deep supervision packed")]
)
def test_both_files_answer_like_the_network_on_odd_sizes(name, tmp_path, monkeypatch):
    # every stage with one block, and one with a second, which is residual: more of them take most
    # of a minute
    monkeypatch.setattr(
        efficientnet_lite, "STAGES", [*STAGES[:2], *(stage._replace(blocks=1) for stage in STAGES[2:])]
    )
    model, config = make_network(name)
    graph, program = tmp_path / "model.onnx", tmp_path / "model.pt2"
    differences = onnx.export_checkpoint(model, config, graph, program)
    assert set(differences) == {graph, program}
    assert sorted(tmp_path.iterdir()) == [graph, program]


@pytest.fixture(scope="module")
def traced(_libraries):
    """The config of the plain network and its graph."""
    model, config = make_network("bilinear")
    return config, onnx.trace(model, config)


@pytest.mark.parametrize("tie", [(5, 229), (3, 33), (0, 102)])
def test_the_window_inside_is_the_projects_own_to_the_bit(tie):
    """Also where a stretched level lies half-way, and for batches with several windows."""
    low, high = tie
    random = np.random.default_rng(low)
    images = [
        random.integers(low, high + 1, (37, 53, 3), np.uint8),
        random.integers(100, 140, (37, 53, 3), np.uint8),
        np.full((37, 53, 3), 77, np.uint8),
    ]
    config = IntensityConfig()
    batch = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).astype(np.float32))
    answers = onnx.stretch_levels(batch, config).numpy().transpose(0, 2, 3, 1)
    for image, answer in zip(images, answers, strict=True):
        np.testing.assert_array_equal(answer, window_image(image, config))


def test_a_batch_answers_like_its_images_one_by_one(traced, tmp_path):
    config, graph = traced
    onnx.write_onnx(tmp_path / "model.onnx", graph, config)
    run = onnx.load_onnx(tmp_path / "model.onnx")
    batch = np.random.default_rng(0).integers(0, 256, (3, 3, 41, 30)).astype(np.float32)
    batch[1] /= 3
    singly = np.concatenate([run(image[None]) for image in batch])
    np.testing.assert_allclose(run(batch), singly, atol=onnx.TOLERANCE)


def test_another_network_than_the_files_own_is_found_out(traced):
    config, graph = traced
    program = graph.module()
    other, _ = make_network("bilinear")
    torch.nn.init.normal_(other.outc.conv.weight)
    with pytest.raises(ValueError, match=r"other.pt2: differs from the checkpoint by .* do not use it"):
        onnx.check(
            lambda images: program(torch.from_numpy(images)).detach().numpy(), other, config, "other.pt2"
        )


def test_a_network_that_asks_for_the_size_is_refused_in_words():
    _, config = make_network("bilinear")

    class Asking(torch.nn.Module):
        smallest = 8

        def forward(self, pixels):
            return pixels if int(pixels.sum()) > 3 else -pixels

    with pytest.raises(
        ValueError, match="small: unet with encoder resnet34 cannot be exported for images of any size"
    ):
        onnx.trace(Asking(), config)


def test_the_script_writes_both_files_of_a_checkpoint(tmp_path):
    model, config = make_network("deep supervision packed")
    checkpoint = {"config": config.model_dump(), "model": model.state_dict(), "fold": 0, "trained_on": []}
    torch.save(checkpoint, tmp_path / "model.pt")
    out = ["--onnx", tmp_path / "model.onnx", "--program", tmp_path / "model.pt2"]
    answer = run_script("export.py", "--checkpoint", tmp_path / "model.pt", *out)
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert answer.stdout.count("of the checkpoint (0.0001)") == 2
    import onnx

    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert Config.model_validate_json(metadata["experiment"]) == config


def test_without_a_trained_network_make_exports_the_shipped_weights(tmp_path):
    command = [
        "make",
        "--no-print-directory",
        "--dry-run",
        "export",
        f"RUNS={tmp_path}",
        f"PYTHON={sys.executable}",
    ]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    source, out = "weights/encoder_resunet/fold_0.safetensors", tmp_path / "weights_encoder_resunet" / "fold_0"
    assert answer.stdout.strip().endswith(
        f"--checkpoint {source} --onnx {out}/model.onnx --program {out}/model.pt2"
    )
