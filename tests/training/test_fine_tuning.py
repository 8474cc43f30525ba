"""What a training takes over from another run, and that no held-out image leaks with it."""

import numpy as np
import pytest
import torch
from tiny_training import CONFIG, train

from nuclei.config import ModelConfig
from nuclei.data.splits import Fold
from nuclei.evaluation.scores import TunedScore
from nuclei.io.files import write_json
from nuclei.io.probability_maps import write_maps
from nuclei.models.checkpoint_file import load_checkpoint
from nuclei.models.factory import build_model
from nuclei.models.weights_file import write_weights
from nuclei.postprocessing.parameters import Parameters
from nuclei.publishing.model_card import make_card
from nuclei.training import fine_tuning
from nuclei.training.fabric import Fabric
from nuclei.training.loop import fit
from nuclei.training.pseudo_labels import label_test_images


def test_a_run_starts_from_the_weights_of_another_and_never_from_one_that_saw_its_held_out_images(
    images, tmp_path, monkeypatch
):
    first = train(images, tmp_path / "tiny" / "fold_0")
    further = CONFIG.training.model_copy(
        update={"start": "tiny", "steps": 1, "learning_rate": 1e-12, "ema_decay": 0.0}
    )
    changed = CONFIG.model_copy(update={"name": "further", "training": further})
    second = train(images, tmp_path / "further" / "fold_0", changed)
    for name, tensor in first["model"].items():
        if name.endswith("weight"):
            torch.testing.assert_close(tensor, second["model"][name], rtol=0, atol=1e-6)
    ids = images.ids("train")
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    with pytest.raises(ValueError, match="was trained on 4 images that fold 0 holds out"):
        fit(fabric, changed, images, Fold(0, ids[4:], ids[:4]), tmp_path / "leaking" / "fold_0", tmp_path)
    assert fine_tuning.find_start(tmp_path, "tiny", 0) == tmp_path / "tiny" / "fold_0" / "model.pt"
    packed = tmp_path / "packed" / "tiny" / "fold_0.safetensors"
    card = make_card(
        first, TunedScore(experiment="tiny", parameters=Parameters().to_dict(), score=0, n_images=8), "", ""
    )
    write_weights(packed, first["model"], card)
    monkeypatch.setattr(fine_tuning, "SHIPPED", tmp_path / "packed")
    third = train(images, tmp_path / "without the run" / "further" / "fold_0", changed)
    for name, tensor in first["model"].items():
        if name.endswith("weight"):
            torch.testing.assert_close(tensor, third["model"][name], rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match=r"fold_0.safetensors was trained on 4 images that fold 0 holds out"):
        fine_tuning.load_start(build_model(CONFIG.model, 3), packed, Fold(0, ids[4:], ids[:4]))
    wider = changed.model_copy(update={"model": ModelConfig(width=5, depth=2)})
    with pytest.raises(ValueError, match=r"fold_0/model.pt is of another network"):
        train(images, tmp_path / "wider" / "fold_0", wider)


def test_a_run_of_an_earlier_version_has_its_weights_in_best_pt(images, tmp_path):
    folder = tmp_path / "tiny" / "fold_0"
    trained = train(images, folder)
    (folder / "model.pt").rename(folder / "best.pt")
    assert fine_tuning.find_start(tmp_path, "tiny", 0) == folder / "best.pt"
    read = load_checkpoint(folder / "model.pt")
    assert all(torch.equal(tensor, trained["model"][name]) for name, tensor in read["model"].items())
    train(images, folder)
    assert fine_tuning.find_start(tmp_path, "tiny", 0) == folder / "model.pt"


@pytest.fixture
def labelling(images, tmp_path):
    """A run "tiny" of fold 0 that is sure of a square in one test image, unsure of the other."""
    train(images, tmp_path / "tiny" / "fold_0")
    maps = {}
    for image_id, value in zip(images.ids("test"), (250, 150), strict=True):
        maps[image_id] = np.zeros((3, *images.size(image_id)), np.uint8)
        maps[image_id][[0, 2], 10:30, 20:50] = value
    write_maps(tmp_path / "tiny" / "fold_0" / "test.npz", maps.items())
    write_json(tmp_path / "tiny" / "cv.json", {"fold": {"0": {"parameters": Parameters().to_dict()}}})
    return tmp_path


def test_test_images_are_labelled_by_the_network_of_the_same_fold_where_it_is_sure(images, labelling):
    ids = images.ids("train")
    labelled = label_test_images(labelling, "tiny", Fold(0, ids[:6], ids[6:]), images)
    (label_map,) = labelled.values()
    assert set(labelled) == {images.ids("test")[0]}
    assert (label_map > 0).sum() == 20 * 30
    assert label_map[10:30, 20:50].min() == 1
    with pytest.raises(
        ValueError, match=r"training.pseudo_labels: .*model.pt was trained on 4 images that fold 0 holds out"
    ):
        label_test_images(labelling, "tiny", Fold(0, ids[4:], ids[:4]), images)
    (labelling / "tiny" / "cv.json").unlink()
    with pytest.raises(ValueError, match=r"cv.json is missing; run `make"):
        label_test_images(labelling, "tiny", Fold(0, ids[:6], ids[6:]), images)


def test_labelled_test_images_are_trained_on_and_noted(images, labelling):
    with_them = CONFIG.training.model_copy(update={"pseudo_labels": "tiny"})
    changed = CONFIG.model_copy(update={"name": "student", "training": with_them})
    student = train(images, labelling / "student" / "fold_0", changed)
    assert student["trained_on"] == [*images.ids("train")[:6], images.ids("test")[0]]
    teacher = torch.load(labelling / "tiny" / "fold_0" / "model.pt", weights_only=True)
    assert any(not torch.equal(student["model"][name], teacher["model"][name]) for name in teacher["model"])
