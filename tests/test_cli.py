import pytest

from nuclei.cli import run
from nuclei.errors import UserError


def fail(error):
    def main():
        raise error

    return main


def test_an_error_that_a_user_can_mend_is_one_line(capsys):
    assert run(fail(UserError("index.csv: no such file; run `make data`"))) == 1
    assert capsys.readouterr().err == "error: index.csv: no such file; run `make data`\n"


def test_an_error_of_the_system_is_one_line(capsys):
    assert run(fail(PermissionError(13, "Permission denied", "out"))) == 1
    assert capsys.readouterr().err == "error: [Errno 13] Permission denied: 'out'\n"


def test_any_other_exception_keeps_its_traceback():
    with pytest.raises(ValueError, match="shapes"):
        run(fail(ValueError("operands could not be broadcast together with shapes (2,) (3,)")))
