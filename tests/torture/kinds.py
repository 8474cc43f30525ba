"""Files that the fuzzer changes, one of every kind, and what reads them."""

import io
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sample_archives import TEST_ZIP, TRAIN_ZIP

from nuclei.config import Config, ModelConfig
from nuclei.config_files import read_config
from nuclei.data.archive import unpack
from nuclei.data.download import MANIFEST, _read_kept
from nuclei.data.external_download import read_public_sets
from nuclei.data.image_sources import read_corrections
from nuclei.data.modality import ALL
from nuclei.data.prepared_images import Images
from nuclei.evaluation.ensemble_weights import read_general_weights
from nuclei.evaluation.scores import read_tuned_score
from nuclei.inference.weights import load_trained, read_ensemble
from nuclei.io.probability_maps import Maps, write_maps
from nuclei.io.tables import read_splits
from nuclei.models.factory import build_model
from nuclei.postprocessing.parameters import Parameters, Tuned
from nuclei.reporting.score_records import read_scores
from nuclei.segmentation.corrections import read_corrected
from nuclei.submission.solution import read_solution
from nuclei.submission.submission import read_sizes, read_submission, validate
from nuclei.submission.submit import Entry, read_record, write_record
from nuclei.training.budgeted_progress import read_log

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "mk"))  # the generator of rules, which make runs before all else

from rules import configs, effort, settings, shipped  # noqa: E402
from rules.text import RefusedError as RefusedError  # noqa: E402

SIZES = {"a": (12, 10), "b": (20, 20)}
CPU = torch.device("cpu")
CONFIG = Config(name="tiny", model=ModelConfig(width=4, depth=2))

Kind = tuple[bytes, str, Callable[[Path], object]]
"""A good file, the name that it is written under, and what reads it."""


def of_project(name: str) -> bytes:
    return (ROOT / name).read_bytes()


def make_kinds(folder: Path) -> dict[str, Kind]:
    index = "image_id,subset,image,label,height,width,nuclei,modality,group,source\n"
    index += "".join(f"{name},test,images/{name}.png,,12,10,,purple_tissue,g{name},s\n" for name in SIZES)
    submission = "ImageId,EncodedPixels\na,1 3 20 2\na,40 5\nb,7 7\n"
    solution = "ImageId,EncodedPixels,Height,Width,Usage\na,1 3,12,10,Private\nb,7 7,20,20,Ignored\n"
    splits = "image_id,fold,group,modality,nuclei\na,0,g,purple_tissue,3\nb,1,h,purple_tissue,0\n"
    network = build_model(CONFIG.model, 3, pretrained=False).state_dict()
    checkpoint = {"config": CONFIG.model_dump(), "model": network, "fold": 0, "trained_on": ["a"]}
    torch.save(checkpoint, folder / "good.pt")
    maps = [(name, np.zeros((3, *size), np.uint8)) for name, size in SIZES.items()]
    write_maps(folder / "good.npz", maps)
    write_record(folder / "kaggle.csv", [Entry("a.csv", "0" * 64, "first", "1", public_score="0.5")])
    parameters = Tuned(Parameters(), {}).to_dict()
    tuned = {"experiment": "a", "n_images": 2, "score": 0.5, "parameters": parameters}
    weights = {
        "n_images": 2,
        "score": 0.5,
        "score_equal": 0.4,
        "weights": {ALL: {"a": 1.0, "b": 0.5}},
        "fold": {},
    }
    log = "epoch,step,loss,learning_rate,validation_score,minutes\n"
    log += "1,2,1.5,0.001,,0.5\n2,4,1.2,0.0003,0.4,0.9\n"
    manifest = f"file,bytes,sha256,source\na.zip,3,{'0' * 64},here\nb.zip,3,{'1' * 64},there\n"
    shipped = next(iter((ROOT / "src/nuclei/weights").glob("*.safetensors")))
    corrected = partial(read_corrected, shape=(30, 30))
    trained = partial(load_trained, device=CPU)
    return {
        "submission": (
            submission.encode(),
            "a.csv",
            lambda path: (read_submission(path), validate(path, SIZES)),
        ),
        "index": (index.encode(), "index.csv", lambda path: (read_sizes(path), read_index(path))),
        "solution": (solution.encode(), "a.csv", read_solution),
        "splits": (splits.encode(), "splits.csv", read_splits),
        "config": (of_project("configs/unet_small.toml"), "a.toml", read_config),
        "card of an ensemble": (of_project("weights/ensemble.json"), "ensemble.json", read_ensemble),
        "tuned parameters": (json.dumps(tuned).encode(), "cv.json", read_tuned_score),
        "scores": (of_project("submissions/scores/unet_small.json"), "a.json", read_scores),
        "ensemble weights": (json.dumps(weights).encode(), "ensemble_weights.json", read_named_weights),
        "log": (log.encode(), "log.csv", lambda path: read_log(path.parent)),
        "record of submissions": ((folder / "kaggle.csv").read_bytes(), "kaggle.csv", read_record),
        "sources of images": (of_project("configs/image_sources.csv"), "a.csv", read_corrections),
        "public data sets": (of_project("configs/external_sets.csv"), "a.csv", read_public_sets),
        "probability maps": ((folder / "good.npz").read_bytes(), "oof.npz", read_all_maps),
        "manifest": (manifest.encode(), MANIFEST, lambda path: _read_kept(path.parent, ["a.zip"])),
        "polygons": (json.dumps(POLYGONS).encode(), "a.geojson", corrected),
        "label map, png": (image_bytes("PNG"), "a.png", corrected),
        "label map, tiff": (image_bytes("TIFF"), "a.tif", corrected),
        "weights": (shipped.read_bytes(), "fold_0.safetensors", trained),
        "checkpoint": ((folder / "good.pt").read_bytes(), "model.pt", trained),
        **make_kinds_of_make(),
        "training archive": (TRAIN_ZIP, "stage1_train.zip", partial(unpack_beside, subset="stage1_train")),
        "test archive": (TEST_ZIP, "stage1_test.zip", partial(unpack_beside, subset="stage1_test")),
    }


def make_kinds_of_make() -> dict[str, Kind]:
    """Files read by the generator of rules, which has its own parsers: standard library only."""
    table = "experiment,minutes,steps,hardware\na,2.5,100,a machine\n"
    log, splits = "epoch,minutes\n1,0.5\n2,0.9\n", "image_id,fold\na,0\nb,1\n"
    config, card = ROOT / "configs/unet_small.toml", ROOT / "weights/ensemble.json"
    scores = (ROOT / "submissions/scores/unet_small.json").read_bytes()
    return {
        "card, by make": (card.read_bytes(), "ensemble.json", shipped.read_members),
        "config, by make": (config.read_bytes(), "a.toml", read_config_of_make),
        "folds, by make": (splits.encode(), "splits.csv", settings.read_folds),
        "log, by make": (log.encode(), "runs/a/fold_1/log.csv", lambda path: say_effort(path.parents[3])),
        "scores, by make": (scores, "scores/a.json", lambda path: say_effort(path.parents[1])),
        "table, by make": (table.encode(), "compare.csv", lambda path: say_effort(path.parent)),
    }


class Folders(dict[str, str]):
    """As much of the settings as the generator needs to find what trainings took before."""

    all_folds = ("0", "1")

    def path(self, name: str, *parts: str) -> str:
        return str(Path(self["FOLDER"], *parts))


def say_effort(folder: Path) -> None:
    folders = Folders(FOLDER=str(folder), RUNS=str(folder / "runs"))
    for runs in ("runs", "others"):
        effort.describe_effort(folders, {"a": [str(folder / runs / "a/fold_0/model.pt")]})


def read_config_of_make(path: Path) -> None:
    configs.read_table.cache_clear()
    for experiment in configs.read_experiments(path.parent).values():
        experiment.training(), experiment.prediction(), experiment.start, experiment.pseudo, experiment.external


def read_index(path: Path) -> None:
    images = Images(path.parent)
    for image_id in images.ids("test"):
        images.size(image_id), images.modality(image_id), images.source(image_id)


def read_named_weights(path: Path) -> None:
    read_general_weights(path, ["a", "b"])


def read_all_maps(path: Path) -> None:
    maps = Maps(path)
    for image_id in maps:
        assert maps[image_id].dtype == np.uint8


def unpack_beside(path: Path, subset: str) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unpack(path, subset, Path(folder) / "out")
        outside = {entry.name for entry in Path(folder).iterdir()} - {"out"}
        assert not outside, f"written outside of the folder: {outside}"


POLYGONS = {
    "type": "FeatureCollection",
    "features": [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[2, 2], [9, 2], [9, 9], [2, 2]]]}},
        {"geometry": {"type": "MultiPolygon", "coordinates": [[[[12, 12], [19.5, 12], [19, 19], [12, 12]]]]}},
    ],
}


def image_bytes(kind: str) -> bytes:
    """A label map of 30 x 30 pixels with three nuclei."""
    labels, out = np.zeros((30, 30), np.uint16), io.BytesIO()
    for label in range(3):
        labels[3 + 9 * label : 8 + 9 * label, 4:20] = label + 1
    Image.fromarray(labels).save(out, kind)
    return out.getvalue()
