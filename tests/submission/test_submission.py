"""Submissions: what is written is read back; what the competition would refuse is refused."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nuclei.evaluation import metric
from nuclei.evaluation.submission_score import score_submission, write_scores
from nuclei.submission import rle, submission
from nuclei.submission.solution import Solution, read_solution

SIZES = {"a": (4, 5), "b": (4, 5), "c": (6, 3)}
GOOD = ["ImageId,EncodedPixels", "a,1 2 6 1", "a,10 3", "b,", "c,18 1"]


def write(path, lines, end="\n"):
    path.write_text("\n".join(lines) + end, encoding="utf-8")
    return path


def label_maps():
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 3, size).astype(np.int32) * (name != "b") for name, size in SIZES.items()}


def faults_of(path, **options):
    with pytest.raises(ValueError, match="fault") as caught:
        submission.validate(path, SIZES, **options)
    first, *rest = str(caught.value).split("\n  ")
    assert first.startswith(f"{path}: ")
    return first.removeprefix(f"{path}: "), rest


def test_written_label_maps_come_back_from_the_file_and_are_accepted(tmp_path):
    path = tmp_path / "submission.csv"
    submission.write_submission(path, label_maps().items())
    read = submission.read_submission(path)
    assert list(read) == list(SIZES)
    for name, label_map in label_maps().items():
        np.testing.assert_array_equal(rle.decode_label_map(read[name], *SIZES[name]), label_map)
    assert submission.validate(path, SIZES) == 4


def test_an_image_without_nuclei_has_one_row_with_nothing_encoded(tmp_path):
    path = tmp_path / "submission.csv"
    submission.write_submission(path, [("b", np.zeros((4, 5), np.int32))])
    assert path.read_text() == "ImageId,EncodedPixels\nb,\n"
    assert submission.read_submission(path) == {"b": []}


def test_the_same_label_maps_give_the_same_bytes_in_a_file_that_pandas_reads_alike(tmp_path):
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    submission.write_submission(one, label_maps().items())
    submission.write_submission(two, iter(label_maps().items()))
    assert one.read_bytes() == two.read_bytes()
    frame = pd.read_csv(one, keep_default_na=False)
    assert list(frame.columns) == ["ImageId", "EncodedPixels"]
    nuclei = [(name, runs) for name, rows in submission.read_submission(one).items() for runs in rows or [""]]
    assert list(frame.itertuples(index=False, name=None)) == nuclei


def test_a_submission_that_fails_half_way_leaves_the_old_file_as_it_was(tmp_path):
    path = write(tmp_path / "submission.csv", GOOD)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="image a occurs twice"):
        submission.write_submission(path, [("a", np.ones((2, 2), np.int32))] * 2)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("image_id", ["", "a,b", 'a"b', "a\nb"])
def test_an_image_id_that_breaks_the_table_is_refused(tmp_path, image_id):
    with pytest.raises(ValueError, match="cannot be an image id"):
        submission.write_submission(tmp_path / "submission.csv", [(image_id, np.ones((2, 2), np.int32))])


@pytest.mark.parametrize(
    "lines", [GOOD, [GOOD[0], *GOOD[:0:-1]], [GOOD[0], GOOD[1], GOOD[4], GOOD[3], GOOD[2]]]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_good_submission_is_accepted_in_any_order_of_rows(tmp_path, lines, end):
    path = tmp_path / "submission.csv"
    path.write_bytes((end.join(lines) + end).encode())
    assert submission.validate(path, SIZES) == 3


def test_quoted_fields_and_spaces_at_the_end_of_runs_do_no_harm(tmp_path):
    path = write(tmp_path / "submission.csv", ['"ImageId","EncodedPixels"', '"a","1 2 "', "b,", "c, 3 4"])
    assert submission.validate(path, SIZES) == 2
    assert submission.read_submission(path) == {"a": ["1 2"], "b": [], "c": ["3 4"]}


FAULTS = {
    "odd runs": ("a,5", ["line 6: image a: 1 numbers; expected pairs"]),
    "descending runs": ("a,20 1 14 2", ["line 6: image a: the run at 14 comes after the run at 20"]),
    "counted from zero": ("c,0 1", ["line 6: image c: a run starts at 0"]),
    "length of zero": ("c,2 0", ["line 6: image c: the run at 2 has the length 0"]),
    "not a number": ("c,NaN", ["line 6: image c: 'NaN' is not a whole number"]),
    "a fraction": ("c,2.0 1.0", ["line 6: image c: '2.0' is not a whole number"]),
    "off the image": (
        "a,20 2",
        ["line 6: image a: a run ends at pixel 21, but height 4 x width 5 gives 20 pixels"],
    ),
    "far off the image": (
        "a,20 999999999999999999",
        ["line 6: image a: a run ends at pixel 1000000000000000018"],
    ),
    "overlap": ("a,5 2 9 1", ["line 6: image a: shares pixel 6 with line 2"]),
    "overlap over and under": ("a,11 1", ["line 6: image a: shares pixel 11 with line 3"]),
    "repeated row": ("a,10 3", ["line 6: image a: repeats line 3"]),
    "nothing beside nuclei": ("a,", ["line 6: image a: nothing encoded in one of its 3 rows"]),
    "nothing twice": (
        "b,",
        ["line 4: image b: nothing encoded in one of its 2 rows", "line 6: image b: nothing"],
    ),
    "nuclei beside nothing": ("b,3 1", ["line 4: image b: nothing encoded in one of its 2 rows"]),
    "unknown image": ("d,1 1", ["line 6: image 'd' is not one of the 3 expected (1 such rows)"]),
    "half a row": ("c", ["line 6: expected the two fields ImageId,EncodedPixels, got 1"]),
    "a third field": ("c,1 1,2", ["line 6: expected the two fields ImageId,EncodedPixels, got 3"]),
    "an empty line": ("", ["line 6: expected the two fields ImageId,EncodedPixels, got 0"]),
}


@pytest.mark.parametrize(("row", "expected"), FAULTS.values(), ids=FAULTS)
def test_one_bad_row_in_a_good_submission_is_named_with_its_line(tmp_path, row, expected):
    count, found = faults_of(write(tmp_path / "submission.csv", [*GOOD, row]))
    assert count == f"{len(expected)} fault" + "s" * (len(expected) > 1)
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected, strict=True))


def test_images_apart_may_use_the_same_pixels(tmp_path):
    path = write(tmp_path / "submission.csv", [GOOD[0], "a,1 18", "b,1 18", "c,1 18"])
    assert submission.validate(path, SIZES) == 3


def test_an_image_without_a_row_is_missing(tmp_path):
    assert faults_of(write(tmp_path / "submission.csv", GOOD[:3])) == (
        "2 faults",
        [f"image {name}: no row; if it has no nuclei, one row with nothing encoded" for name in "bc"],
    )


def test_each_fault_is_found_beside_the_others_in_the_order_of_lines(tmp_path):
    lines = [GOOD[0], "a,1 2", "b,7", "a,2 1", "d,1 1", "b,1 3", "b,19 3", "b,3 1"]
    count, found = faults_of(write(tmp_path / "submission.csv", lines))
    assert count == "6 faults"
    assert [text.split(":")[0] for text in found] == [
        "line 3",
        "line 4",
        "line 5",
        "line 7",
        "line 8",
        "image c",
    ]


def test_of_many_faults_ten_are_told_and_all_are_counted(tmp_path):
    lines = [*GOOD, *(f"a,{start} 0" for start in range(1, 15))]
    count, found = faults_of(write(tmp_path / "submission.csv", lines))
    assert count == "14 faults"
    assert len(found) == 11
    assert found[-1] == "... and 4 more"


MANY_RUNS = " ".join(f"{start} 1" for start in range(1, 60, 2))
MILLION = """
import sys
from nuclei.submission.submission import validate
try:
    validate(sys.argv[1], {"a" * 64: (500, 500)})
except ValueError as error:
    # of this process alone: ru_maxrss would count the one that started it
    (peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(str(error).splitlines()[0].rpartition(": ")[2], peak)
"""


@pytest.mark.parametrize(
    "runs", [lambda _: MANY_RUNS, lambda k: f"{k % 200_000 + 1} 50000"], ids=["same", "other"]
)
def test_a_million_rows_that_repeat_or_overlap_are_refused_in_little_memory(tmp_path, runs):
    path, image_id = tmp_path / "submission.csv", "a" * 64
    with open(path, "w") as file:
        file.write("ImageId,EncodedPixels\n")
        file.writelines(f"{image_id},{runs(number).strip()}\n" for number in range(1_000_000))
    command = [sys.executable, "-c", MILLION, str(path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=60)
    *count, kibibytes = answer.stdout.split()
    assert count[-1] == "faults"
    assert int(kibibytes) < 500_000


@pytest.mark.parametrize("lost", range(1, 8))
def test_a_file_that_was_cut_off_is_refused_wherever_the_cut_is(tmp_path, lost):
    path = write(tmp_path / "submission.csv", GOOD)
    path.write_bytes(path.read_bytes()[:-lost])
    _, found = faults_of(path)
    assert any("may be cut off" in text or text.startswith("image c: no row") for text in found)


HEADERS = ["", "ImageId;EncodedPixels", "EncodedPixels,ImageId", "ImageId,EncodedPixels,Height", "a,1 2"]


@pytest.mark.parametrize("header", HEADERS)
def test_another_header_is_refused(tmp_path, header):
    path = write(tmp_path / "submission.csv", [header, *GOOD[1:]])
    for read in (submission.read_submission, lambda path: submission.validate(path, SIZES)):
        with pytest.raises(ValueError, match="expected the first line 'ImageId,EncodedPixels'"):
            read(path)


def test_what_is_no_text_is_refused_with_a_remedy(tmp_path):
    path = tmp_path / "submission.csv.zip"
    path.write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(ValueError, match="unpack it first"):
        submission.validate(path, SIZES)
    with pytest.raises(ValueError, match="no such file"):
        submission.validate(tmp_path / "none.csv", SIZES)


def test_a_submission_with_half_a_row_is_not_read_as_if_it_were_whole(tmp_path):
    with pytest.raises(ValueError, match="line 6: expected the two fields"):
        submission.read_submission(write(tmp_path / "submission.csv", [*GOOD, "c"]))


def test_runs_longer_than_the_usual_limit_of_a_csv_field_are_read(tmp_path):
    checkerboard = (np.indices((300, 301)).sum(axis=0) % 2).astype(np.int32)
    path = tmp_path / "submission.csv"
    submission.write_submission(path, [("board", checkerboard)])
    assert path.stat().st_size > 131_072
    assert submission.validate(path, {"board": checkerboard.shape}) == 1


def test_images_beyond_the_expected_ones_are_allowed_only_when_asked_for_and_checked_all_the_same(tmp_path):
    path = write(tmp_path / "submission.csv", [*GOOD, "d,100000 5"])
    assert faults_of(path)[1] == ["line 6: image 'd' is not one of the 3 expected (1 such rows); remove it"]
    assert submission.validate(path, SIZES, others={"d"}) == 4
    path = write(tmp_path / "submission.csv", [*GOOD, "d,100000 5", "d,100004 1", "d,9999999999 1"])
    count, found = faults_of(path, others={"d"})
    assert count == "2 faults"
    assert found[0].startswith("line 7: image d: shares pixel 100004 with line 6")
    assert found[1] == "line 8: image d: a run ends at pixel 9999999999"


def test_sizes_are_those_of_the_subset_asked_for(tmp_path):
    columns = "image_id,subset,image,label,height,width,nuclei,modality,group"
    lines = [columns, "x,train,i,l,4,5,1,m,g", "y,test,i,,6,7,,m,g", "z,test,i,,8,9,,m,g"]
    path = write(tmp_path / "index.csv", lines)
    assert submission.read_sizes(path) == {"y": (6, 7), "z": (8, 9)}
    assert submission.read_sizes(path, "train") == {"x": (4, 5)}
    with pytest.raises(ValueError, match="no image of subset 'stage3'"):
        submission.read_sizes(path, "stage3")


SOLUTION = [
    "ImageId,EncodedPixels,Height,Width,Usage",
    "a,1 2,4,5,Private",
    "a,10 3,4,5,Private",
    "b,,4,5,Public",
]


def test_ignored_rows_of_a_solution_are_left_out_and_a_usage_can_be_chosen(tmp_path):
    # The runs of an ignored image may be anything: they are never looked at.
    path = write(tmp_path / "solution.csv", [*SOLUTION, "c,nothing to see,1,1,Ignored"])
    runs = {"a": ["1 2", "10 3"], "b": []}
    assert read_solution(path) == (runs, {"a": (4, 5), "b": (4, 5)}, {"c"})
    assert read_solution(path, "Private") == ({"a": runs["a"]}, {"a": (4, 5)}, {"b", "c"})
    for usage in ("Ignored", "private"):
        with pytest.raises(ValueError, match=r"choose one of \['Private', 'Public'\]"):
            read_solution(path, usage)


BAD_SOLUTIONS = {
    "no size": (["ImageId,EncodedPixels", "a,1 2"], r"the columns \['Height', 'Width'\] are missing"),
    "two sizes": ([*SOLUTION, "a,20 1,5,4,Private"], r"line 5: image a has two sizes, \(4, 5\) and \(5, 4\)"),
    "half a row": ([*SOLUTION, "a,20 1"], "line 5: expected 5 fields, got 2"),
    "size of nothing": ([*SOLUTION, "c,1 1,0,4,Private"], "line 5: expected a height and a width"),
    "size in words": ([*SOLUTION, "c,1 1,four,4,Private"], "line 5: expected a height and a width"),
    "nothing scored": ([SOLUTION[0], "a,1 1,4,5,Ignored"], "no image to score"),
    "empty": ([""], "columns"),
}


@pytest.mark.parametrize(("lines", "message"), BAD_SOLUTIONS.values(), ids=BAD_SOLUTIONS)
def test_a_bad_solution_is_refused(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        read_solution(write(tmp_path / "solution.csv", lines))


@pytest.mark.parametrize(
    ("runs", "message"), [("1 2 3", "solution of image a: .*3 numbers"), ("20 2", "leaves the image of 4 x 5")]
)
def test_faulty_runs_of_a_solution_are_not_taken_for_a_bad_submission(tmp_path, runs, message):
    path = write(tmp_path / "submission.csv", GOOD)
    with pytest.raises(ValueError, match=message):
        score_submission(path, Solution({"a": ["1 1", runs]}, {"a": (4, 5)}, frozenset("bc")))


def test_the_scores_are_those_of_the_label_maps_in_sorted_order(tmp_path):
    truth = label_maps()
    predicted = {name: np.roll(label_map, 1, axis=0) for name, label_map in truth.items()}
    predicted["more"] = np.ones((3, 3), np.int32)
    path = tmp_path / "submission.csv"
    submission.write_submission(path, reversed(predicted.items()))
    runs = {name: rle.encode_label_map(truth[name]) for name in reversed(SIZES)}
    solution = Solution(runs, {name: SIZES[name] for name in runs}, frozenset({"more"}))
    scores = score_submission(path, solution)
    assert list(scores) == ["a", "b", "c"]
    for name, values in scores.items():
        np.testing.assert_array_equal(values, metric.average_precision(truth[name], predicted[name]))
    write_scores(tmp_path / "scores.csv", scores)
    table = pd.read_csv(tmp_path / "scores.csv", index_col="ImageId")
    assert list(table.columns) == [*(f"ap_{threshold:.2f}" for threshold in metric.THRESHOLDS), "mean"]
    np.testing.assert_allclose(table["mean"], [values.mean() for values in scores.values()], atol=1e-10)
    np.testing.assert_allclose(table.iloc[:, :10], list(scores.values()), atol=1e-10)
