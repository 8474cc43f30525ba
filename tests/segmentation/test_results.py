"""The folder of results without a network: its summary."""

import csv

from nuclei.segmentation.results import SummaryRow, write_summary


def write_and_read(path, **values):
    write_summary(path / "summary.csv", [SummaryRow(**{"file": "a.tif", **values})])
    (row,) = csv.DictReader((path / "summary.csv").open())
    return row


def test_numbers_have_six_digits(tmp_path):
    row = write_and_read(tmp_path, pixel_size_um=0.32499999999999996, pixel_size_y_um=1 / 3, nuclei=1234567)
    assert (row["pixel_size_um"], row["pixel_size_y_um"], row["nuclei"]) == ("0.325", "0.333333", "1234567")


def test_no_name_of_a_file_becomes_a_formula(tmp_path):
    row = write_and_read(tmp_path, file="=1+1.png", image="@sum", notes="-1, a note")
    assert (row["file"], row["image"], row["notes"]) == ("'=1+1.png", "'@sum", "'-1, a note")
