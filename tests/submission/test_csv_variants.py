"""Tables as spreadsheets and pandas write them are read, or refused with the remedy."""

import pytest

from nuclei.errors import UserError
from nuclei.submission.solution import read_solution
from nuclei.submission.submission import read_sizes, validate

SOLUTION = "ImageId,EncodedPixels,Height,Width\na,1 2,60,40\n"


def write(folder, text, encoding="utf-8"):
    (folder / "table.csv").write_text(text, encoding=encoding)
    return folder / "table.csv"


def test_a_solution_may_have_a_byte_order_mark_and_an_index_column(tmp_path):
    plain = read_solution(write(tmp_path, SOLUTION))
    assert read_solution(write(tmp_path, SOLUTION, "utf-8-sig")) == plain
    indexed = ",ImageId,EncodedPixels,Height,Width\n0,a,1 2,60,40\n"
    assert read_solution(write(tmp_path, indexed)) == plain


@pytest.mark.parametrize("height", ["60", "60.0", " 60 ", "60."])
def test_a_size_may_be_written_as_a_float(tmp_path, height):
    table = f"image_id,subset,height,width\na,test,{height},40\n"
    assert read_sizes(write(tmp_path, table)) == {"a": (60, 40)}


@pytest.mark.parametrize("height", ["60.5", "nan", "inf", "-60", "0", "9" * 5000, ""])
def test_a_size_that_is_no_whole_number_is_named_with_its_line(tmp_path, height):
    table = f"image_id,subset,height,width\na,test,{height},40\n"
    with pytest.raises(UserError, match=r"table\.csv, line 2: expected a height and a width") as caught:
        read_sizes(write(tmp_path, table))
    assert len(str(caught.value)) < 400


def test_a_submission_with_a_byte_order_mark_is_refused_with_the_remedy(tmp_path):
    path = write(tmp_path, "ImageId,EncodedPixels\na,1 2\n", "utf-8-sig")
    with pytest.raises(UserError, match="byte order mark; save it as UTF-8 without one"):
        validate(path, {"a": (60, 40)})


def test_a_submission_with_an_index_column_is_refused_with_the_remedy(tmp_path):
    path = write(tmp_path, ",ImageId,EncodedPixels\n0,a,1 2\n")
    with pytest.raises(UserError, match=r"leave the other columns out \(pandas: index=False\)"):
        validate(path, {"a": (60, 40)})


def test_the_text_nan_for_no_nuclei_is_refused_with_its_line(tmp_path):
    path = write(tmp_path, "ImageId,EncodedPixels\na,nan\n")
    with pytest.raises(UserError, match=r"2.*'?nan'?"):
        validate(path, {"a": (60, 40)})
