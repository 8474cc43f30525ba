"""Checkpoints from strangers: whatever is in them is refused in one line, and nothing is run."""

import os
import pickle
import time
import zipfile

import pytest
import torch

from nuclei.config import Config, ModelConfig
from nuclei.errors import UserError
from nuclei.inference.weights import load_trained
from nuclei.models.checkpoint_file import load_checkpoint
from nuclei.models.factory import build_model

CONFIG = Config(name="tiny", model=ModelConfig(width=4, depth=2)).model_dump()
NESTED = 20_000


class Command:
    def __reduce__(self):
        return (os.system, ("touch pwned",))


def cycle():
    values: list[object] = []
    values.append(values)
    return values


def settings(**model):
    return {**CONFIG, "model": {**CONFIG["model"], **model}}


@pytest.fixture(scope="module")
def tensors():
    return build_model(ModelConfig(width=4, depth=2), 3, pretrained=False).state_dict()


def write(path, tensors, change):
    content = {"config": CONFIG, "model": tensors, "fold": 0, "trained_on": ["a"], "settings": {}, "effort": {}}
    content |= {key: value(tensors) if callable(value) else value for key, value in change.items()}
    torch.save({key: value for key, value in content.items() if value is not None}, path)


def with_first(tensor):
    return lambda tensors: {**tensors, next(iter(tensors)): tensor}


def test_a_good_checkpoint_is_read(tmp_path, tensors):
    write(tmp_path / "model.pt", tensors, {})
    load_trained(tmp_path / "model.pt", torch.device("cpu"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"effort": Command()}, "it holds more than tensors and plain values; nothing of it was run"),
        ({"fold": None}, "fold: a number"),
        ({"fold": "x" * 5000}, "fold: a number"),
        ({"trained_on": None}, "trained_on: names of images"),
        ({"trained_on": cycle()}, "trained_on: names of images"),
        ({"config": "a"}, "config: a table"),
        ({"config": cycle()}, "config: a table"),
        ({"config": {**CONFIG, "target": cycle()}}, "config: a table"),
        ({"config": settings(width=10**9)}, "model.width"),
        ({"config": settings(depth=10**6)}, "model.depth"),
        ({"config": settings(width=64, depth=6)}, "shape"),
        ({"config": {**CONFIG, "x" * 10_000: 1}}, "xxx"),
        ({"model": [1]}, "model: tensors by name"),
        ({"model": {1: torch.zeros(1)}}, "model: tensors by name"),
        ({"model": {"a": 3}}, "'a' is no tensor"),
        ({"model": {}}, "shape none"),
        ({"model": with_first(torch.zeros(1).expand(10**6, 10**6))}, "no tensor of numbers"),
        ({"model": with_first(torch.zeros(10**6, 10**6, device="meta"))}, "no tensor of numbers"),
        ({"model": with_first(torch.zeros(2, 2).to_sparse())}, "no tensor of numbers"),
        ({"model": with_first(torch.zeros(2, dtype=torch.complex64))}, "no tensor of numbers"),
        ({"model": with_first(torch.zeros(3))}, "shape (3,)"),
        ({"model": with_first(torch.tensor([float("nan")]))}, "NaN"),
    ],
)
def test_a_hostile_checkpoint_is_refused_in_one_line(tmp_path, monkeypatch, tensors, change, said):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "model.pt", tensors, change)
    with pytest.raises(UserError) as refused:
        load_trained(tmp_path / "model.pt", torch.device("cpu"))
    message = str(refused.value)
    assert said in message
    assert "\n" not in message
    assert len(message) < 1000
    assert not (tmp_path / "pwned").exists()


def text_of_pickle(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


DEEP = (
    b"\x80\x02}("
    + text_of_pickle("config") + b"}" + text_of_pickle("model")
    + b"]" * NESTED + b"a" * (NESTED - 1) + b"s"
    + text_of_pickle("model") + b"}u."
)  # fmt: skip


@pytest.mark.parametrize("kind", ["nested", "bomb", "cut", "empty", "bare"])
def test_a_file_that_is_hostile_as_a_whole_is_refused_at_once(tmp_path, monkeypatch, tensors, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    write(path, tensors, {})
    with zipfile.ZipFile(path) as good:
        records = {name: good.read(name) for name in good.namelist()}
    if kind == "nested":
        with zipfile.ZipFile(path, "w") as file:
            for name, content in records.items():
                file.writestr(name, DEEP if name.endswith("data.pkl") else content)
    elif kind == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in records.items():
                file.writestr(name, bytes(2**26) if name.endswith("data/0") else content)
    else:
        content = {"cut": path.read_bytes()[:2000], "empty": b"", "bare": pickle.dumps(Command())}
        path.write_bytes(content[kind])
    started = time.process_time()
    with pytest.raises(UserError, match="checkpoint") as refused:
        load_checkpoint(path)
    assert time.process_time() - started < 10
    assert len(str(refused.value)) < 1000
    assert not (tmp_path / "pwned").exists()
