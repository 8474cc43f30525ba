"""Fine-tuning on corrected pictures: what is held out, what is reported, and that it learns."""

import cv2
import numpy as np
import pytest
import tifffile
import torch

from nuclei.command import main
from nuclei.config import Config, ModelConfig, PredictionConfig, TrainingConfig
from nuclei.inference.weights import load_weights
from nuclei.models.factory import build_model
from nuclei.models.weights_file import VERSION, Card, read_weights, write_weights
from nuclei.postprocessing.parameters import Parameters
from nuclei.segmentation.corrections import read_corrections
from nuclei.synthetic.images import make_image
from nuclei.training import corrections


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Weights of a tiny network without training."""
    torch.manual_seed(0)
    config = Config(
        name="tiny",
        model=ModelConfig(width=4, depth=2),
        training=TrainingConfig(precision="32-true", crop=64),
        prediction=PredictionConfig(flips=1),
    )
    card = Card(
        version=VERSION,
        name="tiny",
        fold=None,
        config=config.model_dump(mode="json"),
        parameters=Parameters(foreground_threshold=0.5, seed_threshold=0.2).to_dict(),
        score=0.0,
        images=0,
        trained_on=["elsewhere"],
        data="nothing",
        licence="CC0-1.0",
    )
    path = tmp_path_factory.mktemp("start") / "tiny.safetensors"
    write_weights(path, build_model(config.model, 3).state_dict(), card)
    return path


def write_pictures(folder, count):
    """Pictures of one kind with label maps as TIFF of 16 bits and PNG of 8 bits."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        image, label_map = make_image("small_fluorescence", number, 64, 96)
        cv2.imwrite(str(folder / f"images/cell {number}.png"), image)
        if number % 2:
            cv2.imwrite(str(folder / f"labels/cell {number}.png"), label_map.astype(np.uint8))
        else:
            tifffile.imwrite(folder / f"labels/cell {number}.tif", label_map.astype(np.uint16))
    return folder


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures") / "mine", 5)


def test_the_command_reports_both_scores_and_writes_weights_that_segment_takes(
    mine, start, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(corrections, "_STEPS", (10, 10))
    out = tmp_path / "my_nuclei.safetensors"
    assert main(["finetune", str(mine), str(out), "--start", str(start), "--minutes", "0.01"]) == 0
    heading, row, mean, written, *_ = capsys.readouterr().out.splitlines()
    assert heading.split() == ["held-out", "picture", "nuclei", "before", "after"]
    assert row.startswith("cell 2 ")
    assert mean.startswith("mean")
    assert "tiny.safetensors fine-tuned on 4 pictures, 10 steps" in written
    card, tensors = read_weights(out)
    assert card.name == "my_nuclei"
    assert card.images == 1
    assert card.trained_on == ["elsewhere", *(f"mine/cell {number}" for number in (0, 1, 3, 4))]
    before = read_weights(start)[1]
    assert any(not torch.equal(tensor, before[name]) for name, tensor in tensors.items())
    maps = load_weights(out, torch.device("cpu"))(make_image("small_fluorescence", 0, 64, 96)[0])
    assert maps.shape == (3, 64, 96)


def test_training_lowers_the_loss_and_starts_from_the_given_weights(mine, start, monkeypatch):
    monkeypatch.setattr(corrections, "_STEPS", (40, 40))
    pictures = read_corrections(mine)
    (fold,) = corrections.split_files(pictures)
    card, tensors = read_weights(start)
    config = corrections.make_config(card, "mine")
    fabric = corrections.launch(torch.device("cpu"), 1, 1)
    rows = []
    real = corrections.train_epoch
    monkeypatch.setattr(corrections, "train_epoch", lambda *args: rows.append(real(*args)) or rows[-1])
    _, steps = corrections.train(fabric, config, tensors, pictures, fold, 0.01)
    assert steps == 40
    losses = [row["loss"] for row in rows]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("files", "held_out"),
    [(2, [1, 1]), (3, [1, 1, 1]), (4, [1]), (9, [1]), (10, [2]), (25, [5])],
)
def test_one_file_in_five_is_held_out_and_of_few_each_once(files, held_out):
    pictures = [
        corrections_of(f"cell_page{page:03d}_{number}", f"cell{number}.tif")
        for number in range(files)
        for page in (1, 2)
    ]
    folds = corrections.split_files(corrections.CorrectedPictures("mine", pictures))
    assert [len(fold.validation) for fold in folds] == [2 * count for count in held_out]
    for fold in folds:
        assert not set(fold.training) & set(fold.validation)
        assert len(fold.training) + len(fold.validation) == 2 * files


def corrections_of(name, file):
    from nuclei.segmentation.corrections import Corrected

    return Corrected(name, file, np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.int32))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none", "w.safetensors"], "none: expected a folder with images/ and labels/"),
        (["{mine}", "w.pt"], "w.pt: give OUT= a file that ends with .safetensors"),
        (["{mine}", "w.safetensors", "--minutes", "0"], "MINUTES=0.0: expected a number above 0"),
        (["{mine}", "w.safetensors", "--minutes", "few"], "MINUTES=few: expected a number"),
        (["{mine}", "w.safetensors", "--start", "nothing"], "nothing: no such weights"),
    ],
)
def test_what_cannot_be_fine_tuned_is_one_line(mine, capsys, arguments, said):
    assert main(["finetune", *(argument.format(mine=mine) for argument in arguments)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


def test_pictures_of_one_file_are_too_few(tmp_path, start):
    folder = write_pictures(tmp_path / "one", 1)
    with pytest.raises(ValueError, match="label maps of one picture file; at least 2 are needed"):
        corrections.finetune(folder, tmp_path / "w.safetensors", start)
