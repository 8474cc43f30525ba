"""The scripts `score` and `validate` as processes: files, output and exit codes."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from script_runs import run_script

from nuclei.submission.submission import write_submission

REPOSITORY = Path(__file__).parents[2]
HEIGHT, WIDTH = 60, 80


def disc(row, column, radius):
    """Pixels of a disc inside the image as a set of coordinates."""
    reach = range(-radius, radius + 1)
    pixels = {(row + i, column + j) for i in reach for j in reach if i * i + j * j <= radius * radius}
    return {(i, j) for i, j in pixels if 0 <= i < HEIGHT and 0 <= j < WIDTH}


def draw(nuclei):
    label_map = np.zeros((HEIGHT, WIDTH), np.int32)
    for label, pixels in enumerate(nuclei, start=1):
        label_map[tuple(zip(*pixels, strict=True))] = label
    return label_map


def runs_by_pixel(pixels):
    """Run lengths of a set of coordinates, pixel by pixel: nothing of the library is used here."""
    numbers = sorted(column * HEIGHT + row + 1 for row, column in pixels)
    runs = []
    for number in numbers:
        if runs and runs[-1][0] + runs[-1][1] == number:
            runs[-1][1] += 1
        else:
            runs.append([number, 1])
    return " ".join(f"{start} {length}" for start, length in runs)


def expected_row(truth, predicted):
    """TP / (TP + FP + FN) at each threshold by the definition, in fractions."""
    row = []
    for percent in range(50, 100, 5):
        hits = sum(
            any(Fraction(len(a & b), len(a | b)) > Fraction(percent, 100) for b in predicted) for a in truth
        )
        row.append(Fraction(hits, len(truth) + len(predicted) - hits))
    return [float(value) for value in [*row, sum(row) / 10]]


@pytest.fixture
def case(tmp_path):
    """Five images of discs, each predicted a little off, and a sixth that the solution ignores."""
    rng = np.random.default_rng(0)
    truth, predicted = {}, {}
    for number in range(5):
        centres = [(row, column) for row in (10, 30, 50) for column in (12, 36, 60)]
        discs = [(*centre, int(rng.integers(4, 10))) for centre in centres]
        truth[f"image{number}"] = [disc(*one) for one in discs]
        moves = rng.integers(-1, 2, (len(discs), 3)) * number
        predicted[f"image{number}"] = [
            disc(row + i // 2, column + j // 2, max(radius + k // 2, 1))
            for (row, column, radius), (i, j, k) in zip(discs, moves.tolist(), strict=True)
        ]
    # Exactly half and exactly three quarters: a hit under >= and none under >.
    truth["image1"] = [{(0, j) for j in range(40)}, {(5, j) for j in range(40)}]
    predicted["image1"] = [{(0, j) for j in range(20)}, {(5, j) for j in range(30)}]
    lines = [
        f"{name},{runs_by_pixel(pixels)},{HEIGHT},{WIDTH},{'Public' if name == 'image4' else 'Private'}"
        for name, nuclei in truth.items()
        for pixels in nuclei
    ]
    header = "ImageId,EncodedPixels,Height,Width,Usage"
    (tmp_path / "truth.csv").write_text("\n".join([header, *lines, "image9,1 1,1,1,Ignored"]) + "\n")
    label_maps = {name: draw(nuclei) for name, nuclei in predicted.items()} | {"image9": draw([disc(9, 9, 3)])}
    write_submission(tmp_path / "submission.csv", label_maps.items())
    # Nuclei that met were drawn over each other: what counts is what the label map shows of them.
    shown = {
        name: [
            set(zip(*(axis.tolist() for axis in np.nonzero(label_map == label)), strict=True))
            for label in np.unique(label_map)[1:]
        ]
        for name, label_map in label_maps.items()
    }
    return tmp_path, {name: expected_row(truth[name], shown[name]) for name in truth}


def score(folder, *arguments):
    files = (
        "--submission",
        folder / "submission.csv",
        "--truth",
        folder / "truth.csv",
        "--out",
        folder / "out.csv",
    )
    return run_script("score.py", *files, *arguments)


def table(path):
    header, *lines = path.read_text().splitlines()
    assert header == "ImageId," + ",".join(f"ap_0.{percent}" for percent in range(50, 100, 5)) + ",mean"
    return {line.split(",")[0]: list(map(float, line.split(",")[1:])) for line in lines}


def test_scores_are_those_of_the_definition_and_the_mean_stands_last(case):
    folder, expected = case
    result = score(folder)
    assert result.returncode == 0, result.stderr
    found = table(folder / "out.csv")
    assert list(found) == sorted(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-9)
    means = np.mean(list(expected.values()), axis=0)
    printed = [line.split() for line in result.stdout.splitlines()]
    np.testing.assert_allclose([float(words[-1]) for words in printed], means, atol=1e-9)
    assert printed[-1][:-1] == ["mean", "of", "5", "images"]
    # The case is worth something: neither all right nor all wrong, and it tells > from >=.
    assert 0.2 < means[-1] < 0.9
    assert expected["image1"][0] == pytest.approx(1 / 3)
    assert expected["image1"][5] == 0


def test_only_the_images_of_a_usage_are_scored_when_one_is_given(case):
    folder, expected = case
    assert score(folder, "--usage", "Private").returncode == 0
    assert set(table(folder / "out.csv")) == set(expected) - {"image4"}
    result = score(folder, "--usage", "Nobody")
    assert result.returncode == 1
    assert "choose one of ['Private', 'Public']" in result.stderr


def test_the_same_files_give_the_same_bytes(case):
    folder, _ = case
    score(folder)
    first = (folder / "out.csv").read_bytes()
    score(folder)
    assert (folder / "out.csv").read_bytes() == first


def test_a_submission_that_lacks_an_image_of_the_truth_is_not_scored(case):
    folder, _ = case
    path = folder / "submission.csv"
    path.write_text("".join(line for line in path.open() if not line.startswith("image2")))
    result = score(folder)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].strip().startswith("image image2: no row")
    assert "Traceback" not in result.stderr
    assert not (folder / "out.csv").exists()


def test_an_image_that_the_truth_does_not_know_is_named_and_nothing_is_scored(case):
    folder, _ = case
    with (folder / "submission.csv").open("a") as file:
        file.write("image8,1 3\n")
    result = score(folder)
    assert result.returncode == 1
    assert result.stderr.strip().endswith(
        "image 'image8' is not one of the 5 expected (1 such rows); remove it"
    )
    assert not (folder / "out.csv").exists()


def write_index(folder, names):
    columns = "image_id,subset,image,label,height,width,nuclei,modality,group"
    rows = [f"{name},test,images/{name}.png,,{HEIGHT},{WIDTH},,small_fluorescence,g" for name in names]
    (folder / "index.csv").write_text("\n".join([columns, *rows]) + "\n")
    return folder / "index.csv"


def test_a_good_submission_is_accepted_with_its_numbers(case):
    folder, _ = case
    index = write_index(folder, [f"image{number}" for number in (0, 1, 2, 3, 4, 9)])
    result = run_script("validate.py", "--submission", folder / "submission.csv", "--index", index)
    assert result.returncode == 0, result.stderr
    rows = len((folder / "submission.csv").read_text().splitlines()) - 1
    assert result.stdout == f"accepted: {folder / 'submission.csv'}, 6 images, {rows} nuclei\n"


def test_a_bad_submission_is_refused_with_its_faults_and_exit_code_one(case):
    folder, _ = case
    index = write_index(folder, ["image0", "image5"])
    with (folder / "submission.csv").open("a") as file:
        file.write("image0,4801 1\n")
    result = run_script("validate.py", "--submission", folder / "submission.csv", "--index", index)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "7 faults" in result.stderr
    assert "image0: a run ends at pixel 4801, but height 60 x width 80 gives 4800 pixels" in result.stderr
    assert "image image5: no row" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["score.py", "validate.py"])
def test_help_does_not_wait_for_heavy_imports(name):
    result = run_script(name, "--help")
    assert result.returncode == 0
    assert "--submission" in result.stdout
    script = f"import runpy, sys; sys.argv = ['{name}', '--help']\n"
    script += f"try: runpy.run_path({str(REPOSITORY / 'scripts' / name)!r}, run_name='__main__')\n"
    script += "except SystemExit: assert not {'numpy', 'pandas', 'cv2', 'torch'} & set(sys.modules)"
    subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        check=True,
        capture_output=True,
    )
