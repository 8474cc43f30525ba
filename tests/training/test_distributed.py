"""Two processes by gloo: the same run and files as in one, and an end when one is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nuclei.io.probability_maps import Maps
from nuclei.models.checkpoint_file import load_checkpoint
from nuclei.training.distributed import launch

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
CONFIG = """
[model]
width = 4
depth = 2
normalisation = "group"
[loss]
border_weight = 1.0
[training]
steps = 30
steps_per_epoch = 1
batch_size = 4
crop = 64
validate_every = 100
validation_images = 1
precision = "32-true"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    ids = [f"image{number:02d}" for number in range(8)]
    table = pd.DataFrame({"image_id": ids, "fold": [0, 1] * 4, "group": ids, "modality": "any", "nuclei": 1})
    table.to_csv(folder / "splits.csv", index=False)
    (folder / "tiny.toml").write_text(CONFIG)
    return folder


def start(script, folder, processed, devices, *arguments, python=sys.executable):
    command = [
        python,
        f"scripts/{script}",
        "--processed",
        processed,
        "--splits",
        folder / "splits.csv",
    ]
    command += ["--device", "cpu", "--devices", devices, "--threads", 1, *arguments]
    settings = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [str(part) for part in command]
    return subprocess.Popen(command, env=settings, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def start_training(folder, processed, devices, name, python=sys.executable):
    arguments = "--config", folder / "tiny.toml", "--fold", 0, "--out", folder / name
    return start("train.py", folder, processed, devices, *arguments, python=python)


def finish(process):
    messages = process.communicate(timeout=300)[1]
    assert process.returncode == 0, messages[-2000:]
    return messages


@pytest.fixture(scope="module")
def runs(folder, processed, warm_python):
    """Folders of the same run in one process and in two."""
    for devices in (1, 2):
        finish(start_training(folder, processed, devices, f"run{devices}", warm_python))
    return folder / "run1", folder / "run2"


def test_two_processes_have_the_losses_and_weights_of_one(runs):
    one, two = (pd.read_csv(run / "log.csv").loss.tolist() for run in runs)
    assert len(one) == len(two) == 30
    # the sums are added in another order, and Adam makes more of the last digit from step to step
    assert two[:10] == pytest.approx(one[:10], rel=2e-5)
    assert two == pytest.approx(one, rel=1e-3)
    one, two = (load_checkpoint(run / "model.pt")["model"] for run in runs)
    for name, weights in one.items():
        assert (weights - two[name]).abs().mean() < 1e-4, name


def test_two_processes_leave_the_files_of_one(runs):
    one, two = (sorted(file.name for file in run.iterdir() if "tfevents" not in file.name) for run in runs)
    assert one == two == ["log.csv", "model.pt"]


def test_shared_prediction_writes_the_same_bytes(folder, processed, runs, warm_python):
    for devices in (1, 2):
        out = folder / f"maps{devices}"
        arguments = "--checkpoint", runs[0] / "model.pt", "--oof", out / "oof.npz", "--test", out / "test.npz"
        finish(start("predict.py", folder, processed, devices, *arguments, python=warm_python))
    for name in ("oof.npz", "test.npz"):
        assert (folder / "maps1" / name).read_bytes() == (folder / "maps2" / name).read_bytes()
    assert sorted(file.name for file in (folder / "maps2").iterdir()) == ["oof.npz", "test.npz"]
    assert np.ptp(Maps(folder / "maps2" / "oof.npz")["image00"]) > 0


def test_a_run_that_loses_a_process_ends_with_words_and_goes_on_to_the_same_weights(folder, processed, runs):
    lost = start_training(folder, processed, 2, "lost")
    while not (folder / "lost" / "last.pt").exists():
        assert lost.poll() is None, lost.communicate()[1][-2000:]
        time.sleep(0.05)
    second = Path(f"/proc/{lost.pid}/task/{lost.pid}/children").read_text().split()[0]
    os.kill(int(second), signal.SIGKILL)
    messages = lost.communicate(timeout=120)[1]
    assert lost.returncode != 0
    assert "error: another process of this run has ended" in messages
    assert not (folder / "lost" / "model.pt").exists()
    assert "resuming" in finish(start_training(folder, processed, 2, "lost"))
    whole, resumed = (load_checkpoint(run / "model.pt")["model"] for run in (runs[1], folder / "lost"))
    for name, weights in whole.items():
        assert torch.allclose(weights, resumed[name], rtol=1e-4, atol=1e-6), name


def test_no_device_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one device and one node"):
        launch(CPU, 0, 1)
