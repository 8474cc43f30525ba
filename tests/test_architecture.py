"""The structure of the project: levels of packages, short scripts, no print in the library."""

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
import os, runpy, sys
import nuclei.cli  # every script imports it; the others each in a fork of their own
heavy = {"torch", "pandas", "cv2", "numpy", "sklearn"}
for script in sys.argv[1:]:
    print(end="", flush=True)
    if os.fork() == 0:
        sys.argv = [script, "--help"]
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit:
            print("\\nloaded", script, *(heavy & sys.modules.keys()), flush=True)
        os._exit(0)
    os.wait()
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

LEVELS = (
    "arrays cli config config_files devices errors io progress provenance",
    "postprocessing submission",
    "data models synthetic",
    "evaluation inference",
    "publishing reporting segmentation training",
    "command __main__",
)
"""Packages and top-level modules of src/nuclei: each imports from its own level or a lower one."""
LEVEL = {package: level for level, packages in enumerate(LEVELS) for package in packages.split()}
FILES = sorted(path for path in SOURCE.rglob("*.py") if path.name != "__init__.py")


def package_of(module):
    return module.split(".")[0]


def module_of(path):
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


MODULES = {module_of(path) for path in FILES}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nuclei":
            module = node.module.removeprefix("nuclei").lstrip(".")
            for name in node.names:
                inner = f"{module}.{name.name}".lstrip(".")
                if inner in MODULES or module:
                    yield inner if inner in MODULES else module


def assert_no_cycle(edges):
    edges = {start: ends - {start} for start, ends in edges.items()}
    while edges:
        leaves = [start for start, ends in edges.items() if not ends & edges.keys()]
        assert leaves, f"a cycle of imports among {sorted(edges)}"
        for start in leaves:
            del edges[start]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_module_imports_from_its_own_level_or_a_lower_one(path):
    own = package_of(module_of(path))
    assert own in LEVEL, f"{own} has no level yet: give it one in LEVELS"
    for imported in imported_modules(path):
        assert LEVEL[package_of(imported)] <= LEVEL[own], f"{own} imports {imported} of a higher level"


def test_no_cycle_among_modules():
    assert_no_cycle({module_of(path): set(imported_modules(path)) for path in FILES})


def test_no_cycle_among_packages():
    edges = {}
    for path in FILES:
        imported = {package_of(module) for module in imported_modules(path)}
        edges.setdefault(package_of(module_of(path)), set()).update(imported)
    assert_no_cycle(edges)


def test_every_package_but_the_root_has_an_empty_init():
    for path in SOURCE.rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        assert path.parent == SOURCE or all(isinstance(node, ast.Expr) for node in body), path


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short(path):
    assert len(path.read_text().splitlines()) <= 60


@pytest.fixture(scope="module")
def loaded_by_help():
    """Heavy libraries that each script has imported after its --help."""
    command = [sys.executable, "-c", HELP, *map(str, SCRIPTS)]
    answer = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    lines = [line.split()[1:] for line in answer.stdout.splitlines() if line.startswith("loaded ")]
    return {Path(script).stem: heavy for script, *heavy in lines}


@pytest.mark.parametrize("name", [path.stem for path in SCRIPTS])
def test_help_loads_nothing_heavy(name, loaded_by_help):
    assert loaded_by_help[name] == []


@pytest.mark.parametrize(
    "command",
    [
        "train --config configs/unet.toml --processed none --splits none --fold 0 --out none",
        "predict --weights none --processed none --test none",
        "segment --images none --out none",
        "finetune --folder none --out none.safetensors",
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
