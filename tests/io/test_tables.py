import pytest

from nuclei.errors import UserError
from nuclei.io.tables import SPLIT_COLUMNS, read_splits, read_table

HEADER = ",".join(SPLIT_COLUMNS)


def write(folder, text, encoding="utf-8"):
    (folder / "splits.csv").write_text(text, encoding=encoding)
    return folder / "splits.csv"


def test_a_table_without_its_columns_names_them(tmp_path):
    with pytest.raises(UserError, match=r"'group', 'modality', 'nuclei'.*make splits"):
        read_splits(write(tmp_path, "image_id,fold\na,0\n"))


def test_a_byte_order_mark_and_an_index_column_are_accepted(tmp_path):
    frame = read_splits(write(tmp_path, f",{HEADER}\n0,a,1,a,m,3\n", "utf-8-sig"))
    assert frame.loc[0, list(SPLIT_COLUMNS)].tolist() == ["a", 1, "a", "m", 3]


@pytest.mark.parametrize("image_id", ["nan", "NA", "null", "007", "1e5"])
def test_an_image_id_is_text_whatever_it_looks_like(tmp_path, image_id):
    frame = read_splits(write(tmp_path, f"{HEADER}\n{image_id},0,{image_id},m,3\n"))
    assert frame.image_id.tolist() == frame.group.tolist() == [image_id]


def test_an_empty_field_is_a_missing_value(tmp_path):
    frame = read_splits(write(tmp_path, f"{HEADER}\na,0,a,m,\nb,0,a,m,3\n"))
    assert frame.nuclei.isna().tolist() == [True, False]


@pytest.mark.parametrize("content", [b"", "image_id,fold".encode("utf-16"), b'image_id\n"a'])
def test_a_file_that_is_no_csv_is_named(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.csv: not a readable CSV in UTF-8 .*do this"):
        read_table(tmp_path / "a.csv", ("image_id",), "do this")
