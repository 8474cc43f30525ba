"""Settings of a fine-tuning on corrected pictures, checked before anything heavy is loaded."""

from pathlib import Path

from nuclei.errors import UserError
from nuclei.io.names import check_name

MINUTES = 5.0
"""Default time for training; reading and scoring come on top."""
_SUFFIX = ".safetensors"


def check_settings(out: Path, minutes: float) -> Path:
    """The path of the weights to write.

    Raises:
        UserError: another ending than .safetensors; an unsafe name; minutes that are none.
    """
    if out.suffix != _SUFFIX or out.is_dir():
        raise UserError(f"{out}: give OUT= a file that ends with {_SUFFIX}, such as my_nuclei{_SUFFIX}")
    check_name(out.stem)
    if not 0 < minutes <= 1440:
        raise UserError(f"MINUTES={minutes}: expected a number above 0, up to 1440")
    return out
