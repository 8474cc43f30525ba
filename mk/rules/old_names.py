"""Renames results of earlier versions, so that no network is trained again for its file's name."""

import os
from pathlib import Path

OLD, NEW = "best.pt", "model.pt"


def adopt_old_results(runs: Path) -> None:
    """Gives each trained fold below `runs` that has only best.pt the name model.pt as well."""
    for old in runs.glob(f"**/fold_*/{OLD}"):
        new = old.with_name(NEW)
        if new.exists():
            continue
        try:
            os.link(old, new)
        except OSError:  # a file system without links
            os.rename(old, new)
