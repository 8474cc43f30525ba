import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nuclei.cli import run
from nuclei.errors import UserError

ROOT = Path(__file__).parents[1]


def fail(error):
    def main():
        raise error

    return main


def test_a_user_error_is_one_line(capsys):
    assert run(fail(UserError("index.csv: no such file; run `make data`"))) == 1
    assert capsys.readouterr().err == "error: index.csv: no such file; run `make data`\n"


def test_an_error_of_the_system_is_one_line(capsys):
    assert run(fail(PermissionError(13, "Permission denied", "out"))) == 1
    assert capsys.readouterr().err == "error: [Errno 13] Permission denied: 'out'\n"


def test_any_other_exception_keeps_its_traceback():
    with pytest.raises(ValueError, match="shapes"):
        run(fail(ValueError("operands could not be broadcast together with shapes (2,) (3,)")))


def test_little_is_imported_before_signals_are_handled():
    code = "import sys, nuclei.cli; print(sorted({'tqdm', 'numpy', 'pandas', 'torch'} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert answer.stdout == "[]\n"


WAITS = """
import atexit, signal, time
from nuclei.cli import run

# a shell's background jobs ignore it
signal.signal(signal.SIGINT, signal.default_int_handler)

def main():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)

atexit.register(lambda: 1 / 0)
raise SystemExit(run(main))
"""


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_script_with_one_line_after_it_cleaned_up(number, code):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    script = subprocess.Popen(
        [sys.executable, "-c", WAITS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert script.stdout.readline() == "ready\n"
    script.send_signal(number)
    out, err = script.communicate(timeout=30)
    assert (out, err) == ("cleaned up\n", "stopped; the same command continues from what is finished\n")
    assert script.returncode == code
