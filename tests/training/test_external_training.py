import cv2
import numpy as np
import pytest
from tiny_training import CONFIG

from nuclei.data.external_sets import add_external
from nuclei.data.splits import Fold
from nuclei.models.checkpoint_file import load_checkpoint
from nuclei.training.fabric import Fabric
from nuclei.training.loop import fit


@pytest.fixture
def sets(tmp_path):
    labels = np.repeat(np.repeat(np.arange(4, dtype=np.uint16).reshape(2, 2), 40, 0), 40, 1)
    for kind, pixels in {"images": (labels * 60).astype(np.uint8), "labels": labels}.items():
        (tmp_path / "sets" / "mine" / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "sets" / "mine" / kind / "one.png"), pixels)
    return tmp_path / "sets"


def test_a_network_trained_on_all_images_and_a_set_names_both_and_needs_no_validation(images, sets, tmp_path):
    training = CONFIG.training.model_copy(update={"external": {"mine": 2.0}, "steps": 2, "ema_decay": 0.0})
    config = CONFIG.model_copy(update={"training": training})
    everything = Fold(2, images.ids("train"), [])
    pool, fold = add_external(images, everything, sets, training.external)
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    folder = tmp_path / "runs" / "tiny" / "all"
    fit(fabric, config, pool, fold, folder, tmp_path / "runs")
    (result,) = folder.glob("*.pt")
    assert load_checkpoint(result)["trained_on"] == [*images.ids("train"), "mine/one"]
