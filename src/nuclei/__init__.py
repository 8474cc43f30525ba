"""Nuclei in microscope images: the 2018 Data Science Bowl from the archive to the submission."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nuclei.inference.named_weights import load
    from nuclei.segmentation.segment import segment, segment_folder
    from nuclei.segmentation.table import measure, read_measurements
    from nuclei.training.corrections import finetune

__all__ = ["__version__", "finetune", "load", "measure", "read_measurements", "segment", "segment_folder"]
__version__ = "0.1.0"

# torch then asks Linux for pages of 2 MB; with pages of 4 kB a fifth of a forward pass on a CPU is
# the kernel handing them out
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_MODULES = {
    "finetune": "nuclei.training.corrections",
    "load": "nuclei.inference.named_weights",
    "measure": "nuclei.segmentation.table",
    "read_measurements": "nuclei.segmentation.table",
    "segment": "nuclei.segmentation.segment",
    "segment_folder": "nuclei.segmentation.segment",
}


def __getattr__(name: str) -> Any:
    """Imports a submodule on first use: torch takes seconds, and most of the package needs none."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
