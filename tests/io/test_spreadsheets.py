"""Tables for a spreadsheet: no text becomes a formula, numbers stay as they are."""

import pandas as pd
import pytest

from nuclei.io.files import write_csv
from nuclei.io.spreadsheets import write_spreadsheet


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", '=HYPERLINK("x")'])
def test_a_text_that_could_be_a_formula_is_written_as_text(tmp_path, text):
    write_spreadsheet(tmp_path / "table.csv", pd.DataFrame({text: [text], "b": ["a=1"]}))
    table = pd.read_csv(tmp_path / "table.csv")
    assert list(table.columns) == [f"'{text}", "b"]
    assert table.iloc[0].tolist() == [f"'{text}", "a=1"]


def test_a_table_without_such_texts_has_the_bytes_of_any_other_csv(tmp_path):
    frame = pd.DataFrame({"image_id": ["a", "b"], "score": [-0.5, 0.25], "text": ["x", None]})
    frame["count"] = pd.array([-3, None], "Int64")
    write_spreadsheet(tmp_path / "table.csv", frame)
    write_csv(tmp_path / "plain.csv", frame)
    assert (tmp_path / "table.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes()
