"""What all scripts share: messages to standard error, and a user's error in one line with exit code 1."""

import logging
import os
import sys
from collections.abc import Callable

from nuclei.errors import UserError


def run(main: Callable[[], None]) -> int:
    """Exit code of `main`: 0, or 1 with `error: ...` on standard error for a `UserError` or an error of the system.

    Any other exception is a bug and keeps its traceback. NUCLEI_DEBUG=1 keeps it for all.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        main()
    except (UserError, OSError) as error:
        if os.environ.get("NUCLEI_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from what is finished", file=sys.stderr)
        return 130
    return 0
