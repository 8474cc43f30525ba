import subprocess

import pytest

from nuclei.provenance import code_commit


@pytest.fixture
def package(tmp_path):
    """A package committed to a repository of its own."""
    folder = tmp_path / "src" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "-m", "first")
    return folder


def git(folder, *arguments):
    answer = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return answer.stdout.strip()


def test_the_commit_is_the_one_checked_out(package):
    assert code_commit(package) == git(package, "rev-parse", "--short=8", "HEAD")


def test_changed_code_is_marked_and_a_changed_file_beside_it_is_not(package):
    clean = code_commit(package)
    (package.parents[1] / "README.md").write_text("more words")
    assert code_commit(package) == clean
    (package / "__init__.py").write_text("x = 1\n")
    assert code_commit(package) == clean + "+"


def test_code_outside_git_has_no_commit_nor_has_a_package_in_anothers_repository(package, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "__init__.py").write_text("")
    assert code_commit(outside) == ""
    installed = package.parents[1] / ".venv" / "nuclei"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert code_commit(installed) == ""
