"""Writes locks/: every package of an installation at one version, with its files' hashes.

`requirements.txt` and `constraints.txt` name what the project uses itself; uv finds what these
need, for all systems and Python versions at once. Each file holds what the files before it lack:

    base.txt         what the project needs to run
    cuda.txt         what torch for NVIDIA GPUs needs on Linux besides
    publishing.txt   ONNX and bioimage.io
    development.txt  tests and checks
    supply.txt       the tools of `make audit`, `make licences`, `make sbom` and `make locks`
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

PYTHON = "3.11"
CUDA = re.compile(r"(nvidia|cuda|triton)\b")
ENTRY = re.compile(r"^(?=[A-Za-z0-9])", re.MULTILINE)
HEADER = (
    "# Written by `make locks` from requirements.txt, constraints.txt and pyproject.toml. Not to be edited.\n"
)


def main() -> None:
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    pins = dict(re.findall(r"^([\w.-]+)(==\S+)", Path("constraints.txt").read_text(), re.MULTILINE))
    wanted, known = Path("requirements.txt").read_text(), set[str]()
    for name, extra in (("base", ""), ("publishing", "publish"), ("development", "dev"), ("supply", "supply")):
        named = [
            re.split(r"[<>=!~ ]", text)[0] for text in extras.get(extra, ()) if not text.startswith("nuclei[")
        ]
        wanted += "".join(f"{one}{pins[one]}\n" for one in named)
        entries = [entry for entry in compile_lock(wanted) if entry not in known]
        known.update(entries)
        if name == "base":
            write("cuda", [entry for entry in entries if CUDA.match(entry)])
            entries = [entry for entry in entries if not CUDA.match(entry)]
        write(name, entries)


def compile_lock(requirements: str) -> list[str]:
    """An entry for each package: its version, its systems and its hashes."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "requirements.in"
        source.write_text(requirements)
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"]
        command += ["--python-version", PYTHON, "--no-header", "--no-annotate", str(source)]
        return ENTRY.split(subprocess.run(command, check=True, capture_output=True, text=True).stdout)[1:]


def write(name: str, entries: list[str]) -> None:
    path = Path("locks") / f"{name}.txt"
    path.write_text(HEADER + "".join(entries))
    print(f"{path}: {len(entries)} packages")


if __name__ == "__main__":
    main()
