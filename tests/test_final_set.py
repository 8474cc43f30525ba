"""SUBSET=stage2: the final set is downloaded, predicted and scored by the real Makefile."""

import csv
import os
import subprocess
from pathlib import Path

import pytest
from final_set import KINDS, SCORED, write_final_set
from kaggle_server import StandIn, file_answer

from nuclei.io.images import read_image
from nuclei.io.probability_maps import Maps
from nuclei.submission.submission import validate

ROOT = Path(__file__).parents[1]


class FinalSet:
    """What `make submission score SUBSET=stage2` left in `folder`, and the sizes of the images."""

    def __init__(self, folder: Path, weights: Path, python: Path) -> None:
        self.folder, self.python = folder, python
        self.sizes = write_final_set(folder / "served")
        with StandIn() as server:
            for path in (folder / "served").iterdir():
                content = path.read_bytes()
                server.routes[f"GET /{path.name}"] = lambda request, content=content: file_answer(
                    request, content
                )
            self.answer = self.make(f"SOURCE={server.url}", f"WEIGHTS={weights}")
            self.asked = {request.route for request in server.requests}

    def make(self, *settings: str) -> subprocess.CompletedProcess[str]:
        places = [f"{name}={self.folder}/{name.lower()}" for name in ("DATA", "RUNS", "SUBMISSIONS")]
        command = ["make", "--no-print-directory", "-C", str(ROOT), "submission", "score", "SUBSET=stage2"]
        command += [f"PYTHON={self.python}", "DEVICE=cpu", *places, *settings]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    def one(self, pattern: str) -> Path:
        (path,) = self.folder.glob(pattern)
        return path


@pytest.fixture(scope="module")
def final_set(tmp_path_factory, tiny_weights, warm_python) -> FinalSet:
    made = FinalSet(tmp_path_factory.mktemp("final"), tiny_weights, warm_python)
    assert made.answer.returncode == 0, (made.answer.stdout + made.answer.stderr)[-3000:]
    return made


def test_only_the_archive_and_the_solution_of_the_final_set_are_downloaded(final_set):
    assert final_set.asked == {"GET /stage2_test_final.zip", "GET /stage2_solution_final.csv"}
    assert {path.name for path in (final_set.folder / "data").iterdir()} == {"stage2"}


def test_all_images_are_submitted(final_set):
    validate(final_set.one("submissions/*_stage2.csv"), final_set.sizes)


def test_ignored_images_are_not_scored(final_set):
    with open(final_set.one("runs/*_stage2/score.csv"), newline="") as file:
        scored = [row["ImageId"] for row in csv.DictReader(file)]
    assert sorted(scored) == sorted(list(final_set.sizes)[:SCORED])
    assert f"mean of {SCORED} images" in final_set.answer.stdout


def test_images_of_every_kind_keep_their_size_and_their_bits(final_set):
    for image_id, size, kind in zip(final_set.sizes, final_set.sizes.values(), KINDS, strict=True):
        image = read_image(final_set.folder / f"data/stage2/processed/images/{image_id}.png")
        assert image.shape == (*size, 3), kind
        assert (image.dtype == "uint16") == kind.endswith("16"), kind
        assert image.max() > 60, kind


def test_every_image_has_maps_of_its_own_size(final_set):
    maps = Maps(final_set.one("runs/*/stage2.npz"))
    assert {image_id: maps[image_id].shape for image_id in maps} == {
        image_id: (3, *size) for image_id, size in final_set.sizes.items()
    }


def test_a_second_run_only_scores_again(final_set, tiny_weights):
    made = [final_set.one("runs/*/stage2.npz"), final_set.one("submissions/*_stage2.csv")]
    before = [path.stat().st_mtime_ns for path in made]
    answer = final_set.make("SOURCE=gone", f"WEIGHTS={tiny_weights}")
    assert answer.returncode == 0, answer.stderr
    assert [path.stat().st_mtime_ns for path in made] == before
