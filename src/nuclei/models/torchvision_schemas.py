"""Adapter: imports torchvision where its compiled operators do not match the installed torch.

Reason: with a CPU build of torch, pip installs a torchvision built for CUDA, whose compiled
operators do not load; `import torchvision` then fails with "operator torchvision::nms does not
exist", and timm and segmentation_models_pytorch with it. Nothing here calls these operators, so
declaring their schemas is enough. Where torchvision imports by itself, nothing is declared.
"""

import importlib
import sys

import torch

OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # a declaration lives as long as its object


def import_torchvision() -> None:
    """Imports torchvision, after declaring the operators that its compiled part failed to register.

    Raises:
        RuntimeError: the import fails for another reason.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _forget_half_imported()
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in OPERATORS:
            library.define(f"{operator}{SCHEMA}")
        _declared.append(library)
        importlib.import_module("torchvision")


def _forget_half_imported() -> None:
    """Python keeps the submodules of a failed import, which would not run a second time."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
