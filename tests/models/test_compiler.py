"""torch's compiler is loaded by what compiles and by nothing else."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nuclei.models import compiler as adapter
from nuclei.models.compiler import Placeholder, hold_compiler_back

ROOT = Path(__file__).parents[2]

TRAINS = """
import sys
import torch
from nuclei.config import ModelConfig, TrainingConfig
from nuclei.models.factory import build_model
from nuclei.models.summary import summarise
from nuclei.training import loop, corrections
from nuclei.training.distributed import launch
from nuclei.training.optimizer import set_up

fabric = launch(torch.device("cpu"), 1, 1)

def step(compiled):
    torch.manual_seed(0)
    network = build_model(ModelConfig(width=2, depth=1), 3, pretrained=False)
    wrapped, state = set_up(fabric, network, TrainingConfig(steps=2))
    if compiled:
        network = torch.compile(network, backend="eager")
        wrapped = fabric.setup_module(network)
    fabric.backward(wrapped(torch.ones(1, 3, 16, 16)).square().mean())
    state.optimizer.step()
    state.schedule.step()
    state.optimizer.load_state_dict(state.optimizer.state_dict())
    return [parameter.detach() for parameter in state.model.parameters()]

plain = step(compiled=False)
summarise(ModelConfig(width=2, depth=1), 32)
assert "torch._dynamo.eval_frame" not in sys.modules, "the compiler is loaded"
again = step(compiled=True)
assert "torch._dynamo.eval_frame" in sys.modules, "the compiler is not loaded"
assert all(torch.equal(one, other) for one, other in zip(plain, again))

from lightning_fabric.wrappers import _unwrap_compiled
network = torch.compile(torch.nn.Linear(1, 1), backend="eager")
assert _unwrap_compiled(network)[0] is network._orig_mod
"""


@pytest.fixture
def compiler(tmp_path, monkeypatch) -> str:
    """The name of a package held back in the compiler's place."""
    package = tmp_path / "held_back"
    package.mkdir()
    (package / "__init__.py").write_text("from held_back.part import number\n")
    (package / "part.py").write_text("number = [7]\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(adapter, "COMPILER", "held_back")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    hold_compiler_back()
    yield "held_back"
    for name in ("held_back", "held_back.part"):
        sys.modules.pop(name, None)


def test_what_is_held_back_is_loaded_by_the_first_use_of_anything_but_what_optimizers_ask(compiler):
    held_back = importlib.import_module(compiler)
    assert isinstance(held_back, Placeholder)
    held_back.graph_break()
    assert held_back.disable(len) is len
    assert not isinstance(3, held_back.OptimizedModule)
    assert not hasattr(held_back, "__wrapped__")
    assert sys.modules[compiler] is held_back
    assert held_back.number == [7]
    assert not isinstance(sys.modules[compiler], Placeholder)


def test_a_submodule_of_what_is_held_back_is_loaded_once(compiler):
    part = importlib.import_module(f"{compiler}.part")
    assert not isinstance(sys.modules[compiler], Placeholder)
    assert part is sys.modules[f"{compiler}.part"]
    assert part.number is sys.modules[compiler].number


def test_what_is_loaded_already_is_left_alone(compiler):
    loaded = importlib.import_module(compiler).number and sys.modules[compiler]
    hold_compiler_back()
    assert sys.modules[compiler] is loaded


def test_a_training_step_and_a_summary_load_no_compiler_and_a_compiled_network_trains_and_is_recognised():
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    answer = subprocess.run([sys.executable, "-c", TRAINS], capture_output=True, text=True, env=environment)
    assert answer.stderr == ""


def test_another_version_of_torch_loads_its_compiler_as_ever(compiler, monkeypatch):
    monkeypatch.setattr(adapter, "version", lambda name: "9.0.0")
    del sys.modules[compiler]
    hold_compiler_back()
    assert compiler not in sys.modules
