"""docs/extending.md, done: each addition is made in a copy of the package, and runs."""

import contextlib
import io
import os
import re
import shutil
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def package(tmp_path):
    """A copy of src/ to change."""
    aside = shutil.ignore_patterns("__pycache__", "*.egg-info", "weights")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=aside)
    return tmp_path / "src/nuclei"


def change(path, pattern, replacement):
    text, count = re.subn(pattern, replacement, path.read_text(), count=1, flags=re.DOTALL)
    assert count == 1, f"{path} has no {pattern}"
    path.write_text(text)


def run(source, code, folder=None):
    """What `code` prints with the package below `source`, in a fork with its libraries imported."""
    with get_context("fork").Pool(1) as process:
        return process.apply(run_here, (source, code, folder or source))


def run_here(source, code, folder):
    for name in [name for name in sys.modules if name.partition(".")[0] == "nuclei"]:
        del sys.modules[name]
    os.chdir(folder)
    sys.path[:0] = [str(folder), str(source)]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {"__name__": "__main__"})
    assert Path(sys.modules["nuclei"].__file__).parents[1] == source
    return printed.getvalue().strip()


def test_a_network_and_a_loss_of_ones_own(tmp_path):
    page = (ROOT / "docs/extending.md").read_text()
    module, config = (re.search(rf"```{kind}\n(# .*?)```", page, re.DOTALL)[1] for kind in ("python", "toml"))
    (tmp_path / "my_module.py").write_text(module)
    (tmp_path / "mine.toml").write_text(config)
    code = """
import torch
from nuclei.config_files import read_config
from nuclei.models.factory import build_model
from nuclei.training.losses import build_loss
config = read_config("mine.toml")
logits = build_model(config.model, 3)(torch.rand(1, 3, 90, 70))
print(*logits.shape, build_loss(config.loss, config.target)(logits, torch.zeros_like(logits)).item() > 0)
"""
    assert run(ROOT / "src", code, tmp_path).split() == ["1", "3", "90", "70", "True"]


def test_a_loss_for_everyone(package):
    change(
        package / "config.py",
        r'(class LossConfig\(Section\):\n    """.*?"""\n)',
        r"\1    squared: NonNegative = 0.0\n",
    )
    change(
        package / "training/losses.py",
        r"(def _by_overlap\(.*?)(        return parts)",
        r"""\1        if config.squared:
            parts["squared"] = config.squared * (logits_BCHW.sigmoid() - target_BCHW).square().mean()
\2""",
    )
    code = """
import torch
from nuclei.config import LossConfig, TargetConfig
from nuclei.training.losses import build_loss
loss = build_loss(LossConfig(dice=0, cross_entropy=1e-9, squared=4), TargetConfig())
print(round(float(loss(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8))), 6))
"""
    assert run(package.parent, code) == "1.0"


def test_an_augmentation(package):
    path = package / "data/augmentation.py"
    path.write_text(
        path.read_text()
        + 'PRESETS["mirror"] = lambda: [A.HorizontalFlip(p=1)]\nSCALES["mirror"] = (1.0, 1.0)\n'
    )
    change(package / "config.py", r"(class AugmentationConfig.*?Literal\[)", r'\1"mirror", ')
    code = """
import numpy as np
from nuclei.config import AugmentationConfig
from nuclei.data.augmentation import Augmentation
label_map = np.arange(64, dtype=np.int32).reshape(8, 8)
image, changed = Augmentation(AugmentationConfig(preset="mirror"))(np.zeros((8, 8, 3), np.uint8), label_map, 0)
print((changed == label_map[:, ::-1]).all())
"""
    assert run(package.parent, code) == "True"


def test_a_post_processing_parameter(package):
    parameters = package / "postprocessing/parameters.py"
    change(parameters, r"(FILTER_PARAMETERS = \()", r'\1"max_area", ')
    change(parameters, r"(    def __post_init__)", r"    max_area: int = 10**9\n\n\1")
    change(
        package / "postprocessing/watershed.py",
        r"(def filter_instances\(.*?)(    return )",
        r"\1    keep &= areas <= parameters.max_area\n\2",
    )
    change(package / "evaluation/tuning.py", r"(\nGRID.*?\{\n)", r'\1    "max_area": (100, 10**9),\n')
    code = """
import numpy as np
from nuclei.evaluation.tuning import GRID
from nuclei.postprocessing.parameters import Parameters
from nuclei.postprocessing.watershed import segment_maps
maps = np.zeros((3, 64, 64), np.uint8)
maps[[0, 2], 5:15, 5:15] = maps[[0, 2], 30:60, 30:60] = 255
print([int(segment_maps(maps, Parameters(max_area=area)).max()) for area in reversed(GRID["max_area"])])
"""
    assert run(package.parent, code) == "[2, 1]"


def test_a_data_source(package):
    change(
        package / "data/download_sources.py",
        r'(def find_origins\(.*?)(    if source == "bbbc")',
        r'\1    if source == "mirror":\n        return _remote_origins("https://mirror.example/dsb2018/", stage)\n\2',
    )
    code = """
from nuclei.data.download_sources import find_origins
print(find_origins("mirror")["stage1_train"].label)
"""
    assert run(package.parent, code) == "https://mirror.example/dsb2018/stage1_train.zip"


def test_a_leaderboard_column(package):
    path = package / "reporting/leaderboard.py"
    change(
        path, r"(def leaderboard\(.*?)(        rows\.append)", r'\1        row["folds"] = len(record.fold)\n\2'
    )
    change(path, r"(def _table\(.*?header = \[)", r'\1"folds", ')
    change(path, r"(def _table\(.*?cells = \[)", r"\1str(row['folds']), ")
    code = f"""
from pathlib import Path
from nuclei.reporting.leaderboard import leaderboard, leaderboard_page
from nuclei.reporting.score_records import read_scores
records = [read_scores(Path({str(ROOT)!r}, "submissions/scores/otsu.json"))]
print(leaderboard_page(leaderboard(records, records, {{}})))
"""
    page = run(package.parent, code)
    assert "| folds | experiment |" in page
    assert "| 5 | [otsu](otsu.csv) |" in page
