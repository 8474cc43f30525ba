"""Pinned versions are within the package's ranges, and locked with hashes."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def read_pins(name):
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return dict(line.split("==") for line in lines if line)


def read_ranges():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    extras = [*optional["publish"], *optional["dev"], *optional["supply"]]
    own = {Requirement(text).name: Requirement(text) for text in project["dependencies"]}
    return own, {Requirement(text).name: Requirement(text) for text in extras if not text.startswith("nuclei[")}


@pytest.mark.parametrize(("kind", "pins"), [(0, "requirements.txt"), (1, "constraints.txt")])
def test_every_dependency_has_a_pin_within_its_range(kind, pins):
    ranges, versions = read_ranges()[kind], read_pins(pins)
    assert ranges.keys() == versions.keys()
    for name, requirement in ranges.items():
        assert requirement.specifier.contains(versions[name]), f"{requirement}: {versions[name]} is pinned"


def test_a_dependency_of_the_package_is_a_range():
    exact = [
        str(requirement) for requirement in read_ranges()[0].values() if "==" in str(requirement.specifier)
    ]
    assert not exact


def read_locks(name):
    text = (ROOT / f"locks/{name}.txt").read_text()
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    return [(*re.match(r"([^=]+)==(\S+)", entry).groups(), entry.count("--hash=sha256:")) for entry in entries]


LOCKS = ("base", "cuda", "publishing", "development", "supply")


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_a_hash(lock):
    assert read_locks(lock)
    assert not [name for name, _, hashes in read_locks(lock) if not hashes]


@pytest.mark.parametrize(("pins", "locks"), [("requirements.txt", LOCKS[:1]), ("constraints.txt", LOCKS)])
def test_the_locks_have_the_pinned_versions(pins, locks):
    locked = {name: version for lock in locks for name, version, _ in read_locks(lock)}
    for name, version in read_pins(pins).items():
        assert Version(locked[name.replace(".", "-")]) == Version(version), "run `make locks`"
