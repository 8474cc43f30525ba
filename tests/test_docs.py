"""README and docs: short lines, and links, paths, commands, settings and keys that exist."""

import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from nuclei.config import Config

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "pictures/README.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
FOLDERS = (
    "ablation benchmarks comparisons configs docs mk notebooks pictures scripts src submissions tests weights"
)
"""Folders of the repository; a path below one of them must exist."""
EXAMPLES = {"EXP", "mine", "my_images", "my_results", "my_module"}
"""Names that a reader replaces by their own."""
FILES = {"md", "onnx", "pt", "pt2", "py"}
"""Endings of files that are called as sections of a config are: `model.pt` is no key."""


def by_name(page):
    return str(page.relative_to(ROOT))


def code_spans(page):
    """What stands in backticks or in fenced blocks, a string a span or line."""
    text = page.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def make_commands(page):
    """The words after each `make`, up to a comment."""
    for span in code_spans(page):
        found = re.match(r"(?:[A-Z_]+=\S+ )*make(?: (.*))?$", span.strip())
        if found:
            words = re.sub(r"'[^']*'|\"[^\"]*\"", "''", (found[1] or "").split(" #")[0])
            yield span, words.split()


def anchors(page):
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def makefiles():
    return "\n".join(path.read_text() for path in [ROOT / "Makefile", *sorted((ROOT / "mk").glob("*.mk"))])


def is_example(path):
    return any(part.split(".")[0] in EXAMPLES or re.search("[<>$]", part) for part in path.split("/"))


def identifiers(text):
    return set(re.findall(r"\w+", text))


def test_the_readme_is_short():
    lines = README.read_text().splitlines()
    assert len(lines) <= 140
    assert max(map(len, lines)) <= 200


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_no_table_cell_is_longer_than_200_characters(page):
    rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert [cell for row in rows for cell in row.split("|") if len(cell) > 200] == []


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_relative_links_resolve(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_paths_below_the_folders_of_the_repository_exist(page):
    pattern = rf"(?<![\w/.$}}])(?:{'|'.join(FOLDERS.split())})/[\w./<>$*{{}}-]*"
    for span in code_spans(page):
        for path in re.findall(pattern, span):
            assert is_example(path) or list(ROOT.glob(path.rstrip("/."))), f"{path} in `{span}`"


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_targets_of_make_exist(page):
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefiles(), re.MULTILINE))
    for command, words in make_commands(page):
        goals = [word for word in words if "=" not in word and not word.startswith("-")]
        assert {goal for goal in goals if "/" not in goal} <= targets, command


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_files_that_make_is_asked_for_belong_to_a_config(page):
    names = {path.stem for path in (ROOT / "configs").glob("*.toml")} | {"ensemble", "otsu"} | EXAMPLES
    names |= {path.stem for path in (ROOT / "weights").glob("*.json")}
    for command, words in make_commands(page):
        for goal in (word for word in words if "/" in word and "=" not in word):
            folder, name = goal.split("/")[:2]
            assert folder in ("submissions", "runs"), command
            assert name.split(".")[0] in names, command


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_settings_of_make_exist(page):
    settings = set(re.findall(r"^([A-Z_]+) *[?:]?=", makefiles(), re.MULTILINE))
    for command, words in make_commands(page):
        given = {word.split("=")[0] for word in words if "=" in word}
        assert given <= settings, command
    alone = {span.split("=")[0] for span in code_spans(page) if re.fullmatch(r"[A-Z_]{3,}=[^ ]*", span)}
    assert alone - {"NUCLEI_DEBUG", "OMP_NUM_THREADS", "THP_MEM_ALLOC_ENABLE"} <= settings


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_config_keys_exist(page):
    sections = {name: field.annotation for name, field in Config.model_fields.items() if name != "name"}
    for span in code_spans(page):
        found = re.match(rf"({'|'.join(sections)})\.(\w+)(?: =.*)?$", span)
        if found and found[2] not in FILES:
            assert found[2] in sections[found[1]].model_fields, span


def test_names_that_the_page_on_extending_points_to_are_in_their_files():
    rows = re.findall(r"^\| `([\w/.]+)` \| ([^|]*)\|", (ROOT / "docs/extending.md").read_text(), re.MULTILINE)
    assert len(rows) > 15
    for path, names in rows:
        wanted = identifiers(" ".join(re.findall(r"`([^`]+)`", names)))
        assert not wanted or wanted <= identifiers((ROOT / path).read_text()), path


def test_the_package_map_lists_the_packages():
    listed = re.findall(r"^\| `(\w+)` \| ", README.read_text().split("## Where things are")[1], re.MULTILINE)
    packages = {path.parent.name for path in (ROOT / "src/nuclei").glob("*/__init__.py")}
    assert sorted(listed) == sorted(packages)


def test_the_readme_names_every_page_of_the_documentation():
    linked = set(re.findall(r"\((docs/[\w-]+\.md)", README.read_text()))
    assert {by_name(page) for page in (ROOT / "docs").glob("*.md")} <= linked


def test_scores_in_the_readme_are_those_of_the_leaderboard():
    scores = pd.read_csv(ROOT / "submissions/leaderboard.csv").set_index("experiment")[["unseen", "score"]]
    measured = scores.map(lambda score: "-" if pd.isna(score) else f"{score:.3f}")
    rows = r"^\| `(\w+)` \| \**([^*|]+?)\** \| [^|]+ \| \**([^*|]+?)\** \|"
    listed = re.findall(rows, README.read_text(), re.MULTILINE)
    assert len(listed) >= 5
    assert [(name, *measured.loc[name]) for name, _, _ in listed] == listed


def test_the_citation_names_the_version_of_the_package():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_readme_commands_are_understood_by_make():
    """`make -n`: what would be done for each command of the README, without doing it."""
    commands = {
        command.strip().split(" #")[0].rstrip()
        for command, words in make_commands(README)
        if words and not any(is_example(word) for word in words if "=" not in word)
    }
    assert len(commands) > 15
    for written in sorted(commands):
        answer = subprocess.run(
            ["bash", "-c", f"{written} -n PYTHON=python3"], cwd=ROOT, capture_output=True, text=True
        )
        assert answer.returncode == 0, f"{written}\n{answer.stderr[-500:]}"
