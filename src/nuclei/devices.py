"""The device a network runs on, and its numeric precision."""

import torch

from nuclei.errors import UserError


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast type for a `training.precision` on a device; None means float32."""
    resolved = resolve_precision(precision, device)
    return {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}[resolved]


def resolve_precision(precision: str, device: torch.device) -> str:
    """`precision`; auto becomes a mixed precision where the device computes in it in hardware."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    return "bf16-mixed" if device.type == "cpu" and _cpu_has_bfloat16() else "32-true"


def _cpu_has_bfloat16() -> bool:
    # private in torch 2.10 to 2.13; a CPU without the instructions is several times slower
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported and supported())


def choose_device(name: str) -> torch.device:
    """The device of `--device`: cpu, cuda, cuda:1, mps or auto (the first GPU, else the CPU).

    Raises:
        UserError: an unknown device, or a GPU where torch has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: unknown; use auto, cpu, cuda, cuda:1 or mps") from error
    if device.type == "cuda" and not _has_gpu(device.index or 0):
        found = f"{torch.cuda.device_count()} CUDA devices"
        raise UserError(f"--device {name}: torch {torch.__version__} sees {found}; use --device cpu or auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"--device {name}: torch sees no Apple GPU; use --device cpu or auto")
    return device


def _has_gpu(number: int) -> bool:
    return torch.cuda.is_available() and number < torch.cuda.device_count()
