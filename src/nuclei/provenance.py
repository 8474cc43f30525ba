"""The git commit of the code that made a result."""

import subprocess
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def code_commit(package: Path = PACKAGE) -> str:
    """Short hash of the commit of a package's code, with a + if the code has uncommitted changes.

    Empty if the code is in no repository: an installed package, an unpacked archive, no git.
    """
    # a package installed inside another project's repository is not tracked there
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return ""
    commit = _git(package, "rev-parse", "--short=8", "HEAD")
    changed = _git(package, "diff", "--quiet", "HEAD", "--", ".") is None
    return f"{commit}{'+' if changed else ''}" if commit else ""


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of git; None if git fails or is not installed."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
