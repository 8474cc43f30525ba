"""Which state of this code made a result."""

import subprocess
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def code_commit(package: Path = PACKAGE) -> str:
    """Short hash of the git commit that a package's code is checked out from, with a + where the code was changed
    since; empty where the code is in no repository (an installed package, an unpacked archive, no git)."""
    # a package installed into the environment of another project lies in that project's repository, but not in its list
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return ""
    commit = _git(package, "rev-parse", "--short=8", "HEAD")
    changed = _git(package, "diff", "--quiet", "HEAD", "--", ".") is None
    return f"{commit}{'+' if changed else ''}" if commit else ""


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, or None where it fails or is not installed."""
    try:
        answer = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
