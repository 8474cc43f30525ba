"""Nuclei in microscope images: the 2018 Data Science Bowl from the archive to the submission."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nuclei.segmentation.segment import segment, segment_folder

__all__ = ["segment", "segment_folder"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for only then: torch takes seconds, and most of the package does without."""
    if name in __all__:
        from nuclei.segmentation import segment as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
