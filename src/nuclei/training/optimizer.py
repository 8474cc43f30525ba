"""AdamW, its learning-rate schedule (warm-up, cosine), and the compiled network."""

import os
import shutil
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from nuclei.config import TrainingConfig
from nuclei.errors import UserError
from nuclei.models.factory import parameter_groups
from nuclei.training.checkpoint import State, average_weights
from nuclei.training.fabric import Fabric


def set_up(
    fabric: Fabric,
    model: nn.Module,
    training: TrainingConfig,
    compiled: bool = False,
    fused: bool = True,
) -> tuple[Any, State]:
    """The network as a training step calls it, on its device, and the initial training state."""
    optimizer = torch.optim.AdamW(parameter_groups(model, training), fused=fused)
    schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, training))
    wrapped, optimizer = fabric.setup(compile_network(model, fabric.device) if compiled else model, optimizer)
    return wrapped, State(model, average_weights(model, training.ema_decay), optimizer, schedule, 0, [])


def learning_rate_factor(step: int, training: TrainingConfig) -> float:
    """Learning-rate factor at a step: linear warm-up, then a cosine to zero at the last step."""
    warmup = max(1, round(training.warmup * training.steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, training.steps - warmup)
    return float(0.5 * (1 + np.cos(np.pi * min(1.0, done))))


def compile_network(model: nn.Module, device: torch.device) -> nn.Module:
    """The network compiled by torch for crops of one size; it shares its parameters with `model`.

    Raises:
        UserError: no C++ compiler on a CPU, for which torch generates C++.
    """
    compilers = (os.environ.get("CXX", "g++"), "g++", "clang++")
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise UserError(
            "--compile: no C++ compiler (g++ or clang++) on the path; install one, or train without --compile"
        )
    compiled: nn.Module = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    return compiled
