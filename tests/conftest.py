"""What several tests share: prepared images, made on the spot by the generator, and a browser."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from nuclei.data.prepared_images import Images
from nuclei.io.files import write_csv
from nuclei.io.images import write_image, write_label_map
from nuclei.synthetic.images import make_image

ROOT = Path(__file__).parents[1]
# The processes that tests start share what is compiled of this project, instead of compiling it
# each; so do the runs of pytest what it compiles of the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# fmt: off
SLOW = (
    "publishing", "training", "reporting/eda/test_page", "reporting/test_ablation",
    "reporting/test_comparison", "reporting/test_html_report", "segmentation/test_results_page",
    "segmentation/test_segment", "submission/test_kaggle_notebook", "submission/test_submission",
    "inference/test_tiling", "models/test_models", "models/test_custom",
    "models/test_torchvision_schemas", "evaluation/test_tuning", "data/test_download",
    "data/test_prepare", "data/test_archive", "io/test_files", "io/test_locks", "test_pipeline",
    "models/test_compiler", "test_make", "test_architecture", "test_notebooks", "test_benchmarks",
    "test_cli", "test_command", "test_final_set", "reporting/test_rendering",
)
"""Test files and folders that train, build many networks, start processes or a browser."""
LONGEST = (
    "test_pipeline", "models/test_models", "publishing/test_onnx", "submission/test_kaggle_notebook",
    "training/test_distributed", "training/test_loop", "publishing/test_bioimageio", "test_make",
)
# fmt: on
"""The files that take longest, the longest first."""
MODALITIES = ("small_fluorescence", "purple_tissue", "grey_tissue", "small_fluorescence")


def pytest_addoption(parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out the slow files, which SLOW names")


def pytest_ignore_collect(collection_path, config) -> bool | None:
    """With --quick slow files are not even imported."""
    if not config.getoption("--quick"):
        return None
    name = collection_path.relative_to(ROOT / "tests").with_suffix("").as_posix()
    return True if name in SLOW else None


def pytest_collection_modifyitems(items) -> None:
    """Longest files first, so that of two processes none ends alone with one."""
    names = [(ROOT / "tests" / name).with_suffix(".py") for name in LONGEST]
    items.sort(key=lambda item: names.index(item.path) if item.path in names else len(names))


@pytest.fixture(scope="session")
def processed(tmp_path_factory) -> Path:
    """Folder of eight training and two test images of 96 x 128 pixels with index.csv."""
    folder = tmp_path_factory.mktemp("processed")
    rows = []
    for number in range(10):
        modality, image_id = MODALITIES[number % len(MODALITIES)], f"image{number:02d}"
        image, label_map = make_image(modality, number, 96, 128)
        subset = "train" if number < 8 else "test"
        write_image(folder / "images" / f"{image_id}.png", image)
        row = {"image_id": image_id, "subset": subset, "image": f"images/{image_id}.png", "label": ""}
        row |= {"height": 96, "width": 128, "nuclei": "", "modality": modality, "group": image_id}
        if subset == "train":
            write_label_map(folder / "labels" / f"{image_id}.png", label_map)
            row |= {"label": f"labels/{image_id}.png", "nuclei": str(int(label_map.max()))}
        rows.append(row)
    write_csv(folder / "index.csv", pd.DataFrame(rows))
    return folder


@pytest.fixture(scope="session")
def images(processed) -> Images:
    return Images(processed)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory) -> Path:
    """A file of weights of a small network that was not trained."""
    import torch

    from nuclei.config import Config, ModelConfig, PredictionConfig, TrainingConfig
    from nuclei.evaluation.scores import TunedScore
    from nuclei.models.factory import build_model
    from nuclei.models.weights_file import write_weights
    from nuclei.postprocessing.parameters import Parameters
    from nuclei.publishing.model_card import make_card

    torch.manual_seed(0)
    precision, flips = TrainingConfig(precision="32-true"), PredictionConfig(flips=1)
    config = Config(name="tiny", model=ModelConfig(width=4, depth=2), training=precision, prediction=flips)
    tensors = build_model(config.model, 3, pretrained=False).state_dict()
    checkpoint = {"config": config.model_dump(), "model": tensors, "fold": 0, "trained_on": ["image00"]}
    score = TunedScore(experiment="tiny", parameters=Parameters().to_dict(), score=0.5, n_images=1)
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    write_weights(path, tensors, make_card(checkpoint, score, "generated images", "CC0-1.0"))
    return path


@pytest.fixture(scope="session")
def warm_python() -> Iterator[Path]:
    """The PYTHON for a make whose scripts need not start one by one."""
    from warm_python import WarmPython

    with WarmPython() as server:
        yield server.command


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium with its driver here: `apt-get install chromium chromium-driver`")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-background-networking",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture
def opened(browser, page):
    """The browser at the `page` of the module that asks, which must not complain meanwhile."""
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get(page.as_uri())
    yield browser
    assert browser.get_log("browser") == [], "the page complained"
