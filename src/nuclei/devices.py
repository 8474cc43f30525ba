"""Where a network computes, and in which type of number."""

import torch

from nuclei.errors import UserError


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """The type of autocast for a setting of `training.precision` (auto resolved for the device); None is float32."""
    resolved = resolve_precision(precision, device)
    return {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}[resolved]


def resolve_precision(precision: str, device: torch.device) -> str:
    """`precision`, or for auto bf16-mixed where the device multiplies bfloat16 in hardware, else 32-true."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    return "bf16-mixed" if device.type == "cpu" and _cpu_has_bfloat16() else "32-true"


def _cpu_has_bfloat16() -> bool:
    # private in torch 2.10 to 2.13; a CPU without the instructions emulates them several times slower
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported and supported())


def choose_device(name: str) -> torch.device:
    """The device of a flag: cpu, cuda, cuda:1, mps or auto (the first GPU, else the CPU).

    Raises:
        UserError: a GPU is asked for where torch sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: torch {torch.__version__} sees no CUDA device; use --device cpu or auto")
    return device
