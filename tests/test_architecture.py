"""The structure that README.md promises: layers, short scripts, no print in the library."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "nuclei"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src")}
HELP = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit:
    print(sorted({"torch", "pandas", "cv2", "numpy", "sklearn"} & sys.modules.keys()))
"""
MISTAKE = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print(end.code, "torch" in sys.modules)
"""
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))

LAYERS = {
    "words": "cli config intensity metric rle targets parameters islands postprocessing mosaics synthetic shapes light "
    "classical modality annotations provenance overlays pages",
    "disk": "artifacts experiments pictures exports notebook kaggle_model archive transfer kaggle_client sources "
    "download competition splits",
    "learning": "losses augmentation devices views models dataset",
    "flows": "checkpoints monitoring inference earlier export single_file zoo ensemble tiling stitching cards weights "
    "submission solution entry scoring candidates tuning shares standings gallery census tallies distributed",
    "stages": "segmentation training leaderboard report survey comparison ablation plots",
}
LEVEL = {module: level for level, modules in enumerate(LAYERS.values()) for module in modules.split()}


def module_of(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nuclei"):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [name.name for name in node.names]


FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_from_its_own_layer_or_a_lower_one(path):
    own = module_of(path)
    assert own in LEVEL, f"{own} has no layer yet: give it one in LAYERS"
    for imported in imported_modules(path):
        assert LEVEL[imported] <= LEVEL[own], f"{own} imports {imported} of a higher layer"


def test_no_module_imports_itself_in_a_circle():
    edges = {}
    for path in FILES:
        edges.setdefault(module_of(path), set()).update(set(imported_modules(path)) - {module_of(path)})
    while edges:
        leaves = [module for module, imported in edges.items() if not imported & edges.keys()]
        assert leaves, f"a circle among {sorted(edges)}"
        for module in leaves:
            del edges[module]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short(path):
    assert len(path.read_text().splitlines()) <= 60


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_help_loads_nothing_heavy(path):
    answer = subprocess.run([sys.executable, "-c", HELP, path], capture_output=True, text=True, env=ENVIRONMENT)
    assert answer.stdout.strip().endswith("[]"), answer.stdout[-200:]


@pytest.mark.parametrize(
    "command",
    [
        "train --config configs/unet.toml --processed none --splits none --fold 0 --out none",
        "predict --weights none --processed none --test none",
        "segment --images none --out none",
        "make_submission --maps none --weights none --processed none --out none",
        "make_weights --checkpoints none --cv none --out none",
        "summary --config none",
    ],
)
def test_what_is_wrong_with_the_arguments_is_said_before_torch_is_loaded(command):
    script, *others = command.split()
    answer = subprocess.run(
        [sys.executable, "-c", MISTAKE, f"scripts/{script}.py", *others],
        capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT,
    )  # fmt: skip
    assert answer.stderr.startswith("error: ")
    assert "none" in answer.stderr
    assert answer.stdout.split() == ["1", "False"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_library_logs_and_does_not_print(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    printing = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert not printing or path.name == "cli.py"
