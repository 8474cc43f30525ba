"""What all scripts share: logging, user errors in one line with exit code 1, and signals."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from nuclei.errors import UserError
from nuclei.io.file_times import note_inputs


class Terminated(BaseException):
    """SIGTERM, raised so that `finally` blocks run."""


class MessageHandler(logging.StreamHandler):
    """Writes messages to stderr, never into the line of a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        # only imported here: until `run` takes over, Ctrl-C shows a traceback of Python
        from nuclei.progress import above_bars

        with above_bars():
            super().emit(record)


IMAGE_SOURCES = Path(__file__).parents[2] / "configs" / "image_sources.csv"
"""The sources of the competition's images, which a checkout has; the default of several scripts."""

EXTERNAL_SETS = IMAGE_SOURCES.with_name("external_sets.csv")
"""The public data sets that can be downloaded, with licence, source and citation."""


def run(main: Callable[[], None]) -> int:
    """Exit code of `main`: 0, or 1 after `error: ...` for a `UserError` or an error of the system.

    Any other exception is a bug and keeps its traceback. NUCLEI_DEBUG=1 keeps all tracebacks.
    Ctrl-C and SIGTERM end the process with one line and the codes 130 and 143.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[MessageHandler()])
    # Fabric says which precision it uses, in lines that name no job
    logging.getLogger("lightning_utilities").setLevel(logging.WARNING)
    note_inputs(sys.argv[1:])
    previous = signal.signal(signal.SIGTERM, _terminate_in(os.getpid()))
    try:
        main()
    except (UserError, OSError) as error:
        if os.environ.get("NUCLEI_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        _stop(130)
    except Terminated:
        _stop(143)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _terminate_in(process: int) -> Callable[[int, FrameType | None], None]:
    """A handler of SIGTERM that raises `Terminated` in one process and ends its forks quietly."""

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            os._exit(143)
        raise Terminated

    return handle


def _stop(code: int) -> None:
    """Ends the process without the exit handlers of libraries, which may print tracebacks."""
    print("stopped; the same command continues from what is finished", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
