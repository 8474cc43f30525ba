import csv
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_training import CONFIG, train

from nuclei.config import LossConfig, ModelConfig, TrainingConfig
from nuclei.io.locks import folder_lock
from nuclei.models import checkpoint_file
from nuclei.models.factory import build_model
from nuclei.training import checkpoint, loop, optimizer
from nuclei.training.optimizer import learning_rate_factor

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def uninterrupted_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("uninterrupted")


@pytest.fixture(scope="module")
def uninterrupted(images, uninterrupted_folder):
    return train(images, uninterrupted_folder)


def assert_same_weights(one, other):
    assert one["model"].keys() == other["model"].keys()
    for name, tensor in one["model"].items():
        assert torch.equal(tensor, other["model"][name]), name


def train_and_stop(images, folder, monkeypatch, epochs, config=CONFIG):
    """Trains until `epochs` are done and is then interrupted."""
    whole = loop.train_epoch

    def train_epoch(fabric, model, state, *others):
        if state.epoch == epochs:
            raise KeyboardInterrupt
        return whole(fabric, model, state, *others)

    with monkeypatch.context() as stopping:
        stopping.setattr(loop, "train_epoch", train_epoch)
        with pytest.raises(KeyboardInterrupt):
            train(images, folder, config)


@pytest.mark.parametrize(("epochs", "workers"), [(1, 0), (3, 0), (2, 1), (2, 2)])
def test_a_stopped_run_goes_on_and_ends_with_the_same_weights(
    images, tmp_path, monkeypatch, uninterrupted, epochs, workers
):
    train_and_stop(images, tmp_path, monkeypatch, epochs)
    assert not (tmp_path / "model.pt").exists()
    assert_same_weights(train(images, tmp_path, workers=workers), uninterrupted)
    assert not (tmp_path / "last.pt").exists()
    assert [int(row["epoch"]) for row in csv.DictReader((tmp_path / "log.csv").open())] == [1, 2, 3, 4]


def test_a_training_that_waited_for_the_same_one_keeps_its_result(
    images, tmp_path, monkeypatch, uninterrupted, uninterrupted_folder
):
    holding = threading.Event()

    def train_meanwhile():
        with folder_lock(tmp_path):
            holding.set()
            time.sleep(0.5)
            shutil.copy(uninterrupted_folder / "model.pt", tmp_path)

    other = threading.Thread(target=train_meanwhile)
    other.start()
    holding.wait()
    monkeypatch.setattr(loop, "train_epoch", None)  # it would be called
    assert_same_weights(train(images, tmp_path), uninterrupted)
    other.join()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt"]


def change(**training):
    return CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update=training)})


def test_a_changed_seed_starts_from_the_beginning_and_the_old_state_is_kept(
    images, tmp_path, monkeypatch, caplog
):
    train_and_stop(images, tmp_path, monkeypatch, 2)
    before = (tmp_path / "last.pt").read_bytes()
    fresh = train(images, tmp_path / "fresh", change(seed=1))
    caplog.clear()
    assert_same_weights(train(images, tmp_path, change(seed=1)), fresh)
    assert "last.pt cannot be resumed, because these changed: training.seed (0 -> 1)." in caplog.text
    assert (tmp_path / "last_kept_1.pt").read_bytes() == before


def test_a_second_state_that_cannot_be_resumed_gets_a_name_of_its_own(images, tmp_path, monkeypatch):
    for seed in (1, 2):
        train_and_stop(images, tmp_path, monkeypatch, 1)
        train(images, tmp_path, change(seed=seed, steps=2))
    assert sorted(path.name for path in tmp_path.glob("last*")) == ["last_kept_1.pt", "last_kept_2.pt"]


def test_settings_that_do_not_change_the_weights_do_not_stop_a_run_from_resuming(
    images, tmp_path, monkeypatch, uninterrupted, caplog
):
    train_and_stop(images, tmp_path, monkeypatch, 2)
    changed = change(validate_every=3, validation_images=2, precision="auto").model_copy(
        update={"name": "renamed", "prediction": CONFIG.prediction.model_copy(update={"flips": 1})}
    )
    monkeypatch.setattr(checkpoint, "resolve_precision", lambda precision, device: "32-true")
    caplog.set_level("INFO")
    assert_same_weights(train(images, tmp_path, changed), uninterrupted)
    assert "resuming" in caplog.text
    assert not list(tmp_path.glob("last*"))


@pytest.mark.parametrize("content", [b"PK truncated", None])
def test_a_state_that_cannot_be_read_or_is_of_an_older_version_is_kept(
    images, tmp_path, uninterrupted, content
):
    if content is None:
        torch.save({"fingerprint": "0" * 64}, tmp_path / "last.pt")
    else:
        (tmp_path / "last.pt").write_bytes(content)
    assert_same_weights(train(images, tmp_path), uninterrupted)
    assert (tmp_path / "last_kept_1.pt").is_file()


def stop_around_the_result(images, folder, monkeypatch, write):
    """Trains, and is interrupted right before or right after the result gets its name."""
    real = loop.write_checkpoint

    def write_checkpoint(*arguments):
        if write:
            real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(loop, "write_checkpoint", write_checkpoint)
        with pytest.raises(KeyboardInterrupt):
            train(images, folder)


def test_a_kill_before_the_result_is_written_leaves_the_last_epoch(
    images, tmp_path, monkeypatch, uninterrupted
):
    stop_around_the_result(images, tmp_path, monkeypatch, write=False)
    assert (tmp_path / "last.pt").is_file()
    assert_same_weights(train(images, tmp_path), uninterrupted)


def test_a_kill_after_the_result_is_written_leaves_the_result(images, tmp_path, monkeypatch):
    stop_around_the_result(images, tmp_path, monkeypatch, write=True)
    result = tmp_path / checkpoint_file.RESULT
    written, time = result.read_bytes(), result.stat().st_mtime_ns
    assert (tmp_path / "last.pt").is_file()
    train(images, tmp_path)
    assert (result.read_bytes(), result.stat().st_mtime_ns) == (written, time)
    assert not (tmp_path / "last.pt").exists()


def test_a_run_that_was_started_again_after_its_result_resumes(
    images, tmp_path, monkeypatch, uninterrupted, caplog
):
    caplog.set_level("INFO")
    train(images, tmp_path)
    train_and_stop(images, tmp_path, monkeypatch, 2)
    assert_same_weights(train(images, tmp_path), uninterrupted)
    assert "resuming" in caplog.text


def test_the_weights_depend_on_images_label_maps_pseudo_labels_and_start_weights(tmp_path):
    def settings(image=b"", label_map=b"", pseudo_label=0, start=None):
        images = SimpleNamespace(files=lambda image_id: [image, label_map])
        labelled = {"b": np.full((4, 4), pseudo_label, np.int32)}
        crops = SimpleNamespace(fold=0, ids=["a", "b"], labelled=labelled)
        return checkpoint.collect_settings(CONFIG, torch.device("cpu"), images, crops, start)

    (tmp_path / "start.pt").write_bytes(b"weights")
    variants = [
        settings(),
        settings(image=b"other"),
        settings(label_map=b"other"),
        settings(pseudo_label=1),
        settings(start=tmp_path / "start.pt"),
    ]
    assert settings() == settings()
    assert len({tuple(sorted(variant.items())) for variant in variants}) == 5


def test_a_run_whose_crops_are_made_on_the_device_goes_on_where_it_stopped(images, tmp_path, monkeypatch):
    augmentation = CONFIG.augmentation.model_copy(update={"place": "device"})
    placed = CONFIG.model_copy(update={"augmentation": augmentation})
    whole = train(images, tmp_path / "whole", placed)
    train_and_stop(images, tmp_path / "stopped", monkeypatch, 2, placed)
    assert_same_weights(train(images, tmp_path / "stopped", placed), whole)
    assert whole["settings"]["augmentation.place"] == '"device"'


def test_a_state_from_before_there_was_a_place_of_augmentation_can_be_resumed():
    assert "augmentation.place" not in CONFIG.weight_settings()


def test_a_compiled_network_takes_the_same_steps(images, tmp_path):
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("torch.compile writes C++ on a CPU, and no compiler is here")
    steps = CONFIG.training.model_copy(update={"steps": 2})
    changed = CONFIG.model_copy(update={"model": ModelConfig(width=4, depth=1), "training": steps})
    as_it_is = train(images, tmp_path / "as_it_is", changed)["model"]
    compiled = train(images, tmp_path / "compiled", changed, compiled=True)["model"]
    assert as_it_is.keys() == compiled.keys()
    for name, tensor in as_it_is.items():
        torch.testing.assert_close(tensor, compiled[name], rtol=1e-3, atol=1e-4)


def test_compiling_without_a_compiler_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ValueError, match="no C\\+\\+ compiler"):
        optimizer.compile_network(build_model(ModelConfig(width=4, depth=1), 3), torch.device("cpu"))


def test_weights_are_the_average_over_steps_not_the_last_ones(images, tmp_path, uninterrupted):
    last = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"ema_decay": 0.0})})
    weights = train(images, tmp_path, last)["model"]
    assert any(not torch.equal(weights[name], uninterrupted["model"][name]) for name in weights)


@pytest.mark.parametrize("loss", [{"border_weight": 5.0}, {"small_weight": 2.0}])
def test_pixel_weights_reach_the_loss(images, tmp_path, uninterrupted, loss):
    weighted = train(images, tmp_path, CONFIG.model_copy(update={"loss": LossConfig(**loss)}))["model"]
    assert any(not torch.equal(weighted[name], uninterrupted["model"][name]) for name in weighted)


def test_a_checkpoint_tells_what_it_was_trained_on(uninterrupted, images):
    assert uninterrupted["trained_on"] == images.ids("train")[:6]
    assert uninterrupted["config"]["name"] == "tiny"
    assert uninterrupted["effort"]["parameters"] > 1000


def test_a_loss_that_is_not_finite_stops_with_the_images(images, tmp_path):
    wild = CONFIG.model_copy(
        update={"training": CONFIG.training.model_copy(update={"learning_rate": 1e30, "warmup": 0.0})}
    )
    with pytest.raises(ValueError, match=r"loss is (nan|inf) in epoch 0, step 1, images \['image0"):
        train(images, tmp_path, wild)


def test_the_first_of_several_unread_losses_that_is_not_finite_is_named():
    losses = [1.0, float("nan"), float("inf")]
    unread = [(step, [f"image{step}"], torch.tensor(loss)) for step, loss in enumerate(losses, 40)]
    assert loop._read_losses(unread[:1], 2) == [1.0]
    with pytest.raises(ValueError, match=r"loss is nan in epoch 2, step 41, images \['image41'\]"):
        loop._read_losses(unread, 2)


def test_the_learning_rate_rises_then_falls_to_zero():
    schedule = TrainingConfig(steps=100, warmup=0.1)
    factors = [learning_rate_factor(step, schedule) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[10] == pytest.approx(1)
    assert factors[100] == pytest.approx(0)
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_fifty_steps_lose_what_they_lost_before(processed, tmp_path):
    """The smoke run. A change that means to change the numbers copies the run's log.csv to smoke_losses.csv."""
    splits, folder = tmp_path / "splits.csv", tmp_path / "run"
    ids = [f"image{number:02d}" for number in range(8)]
    table = pd.DataFrame({"image_id": ids, "fold": [0, 1] * 4, "group": ids, "modality": "any", "nuclei": 1})
    table.to_csv(splits, index=False)
    # the same instructions on every x86 machine, so that the sums are added in the same order
    settings = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, ROOT / "scripts/train.py", "--config", ROOT / "tests/smoke.toml", "--fold", "0"]
    command += [
        "--processed",
        processed,
        "--splits",
        splits,
        "--out",
        folder,
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    subprocess.run([str(part) for part in command], check=True, env=settings, capture_output=True)
    losses = pd.read_csv(folder / "log.csv").loss
    committed = pd.read_csv(ROOT / "tests/smoke_losses.csv").loss
    assert len(losses) == len(committed) == 50
    assert losses.tolist() == pytest.approx(committed.tolist(), rel=1e-5)
    assert losses[-5:].mean() < losses[:5].mean()


def test_tensorboard_shows_held_out_images_with_what_was_predicted(images, uninterrupted, uninterrupted_folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(uninterrupted_folder), {"images": 0})
    events.Reload()
    scalars = sorted(events.Tags()["scalars"])
    assert scalars[:2] == ["learning/loss", "learning/validation_score"]
    assert all(tag.startswith("speed/") for tag in scalars[2:])
    tags = events.Tags()["images"]
    assert tags == [f"validation/{images.ids('train')[6]}"]
    picture = events.Images(tags[0])[-1]
    assert (picture.height, picture.width) == (96, 3 * 128)
    assert picture.step == 8
