import pytest
import torch

from nuclei import devices
from nuclei.devices import autocast_type, choose_device, resolve_precision
from nuclei.errors import UserError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many GPUs torch seems to have."""

    def pretend(number):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)

    return pretend


@pytest.mark.parametrize(("number", "chosen"), [(0, "cpu"), (1, "cuda")])
def test_auto_is_the_gpu_where_there_is_one(gpus, number, chosen):
    gpus(number)
    assert choose_device("auto") == torch.device(chosen)


def test_a_device_is_chosen_by_its_number(gpus):
    gpus(2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [("cuda:2", "sees 2 CUDA devices; use --device cpu or auto"), ("gpu", "unknown; use auto, cpu, cuda")],
)
def test_a_device_that_is_not_there_is_refused(gpus, name, said):
    gpus(2)
    with pytest.raises(UserError, match=f"--device {name}: .*{said}"):
        choose_device(name)


@pytest.mark.parametrize(("has_bfloat16", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_precision_of_a_cpu_is_bfloat16_only_where_it_has_the_instructions(
    monkeypatch, has_bfloat16, precision
):
    monkeypatch.setattr(devices, "_cpu_has_bfloat16", lambda: has_bfloat16)
    assert resolve_precision("auto", CPU) == precision


@pytest.mark.parametrize(("has_bfloat16", "precision"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_auto_precision_of_a_gpu_is_half_and_bfloat16_where_it_can(monkeypatch, has_bfloat16, precision):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    assert resolve_precision("auto", GPU) == precision


@pytest.mark.parametrize(
    ("precision", "dtype"), [("32-true", None), ("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)]
)
def test_a_precision_that_is_named_is_kept_on_any_device(precision, dtype):
    assert [resolve_precision(precision, device) for device in (CPU, GPU)] == [precision] * 2
    assert autocast_type(precision, CPU) == dtype
