"""EDA: the table and the page show what the images contain, and the page is self-contained."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browsing import choose, column, find, widen
from hypothesis import given, settings
from hypothesis import strategies as st
from script_runs import run_script

from nuclei.data.prepare import KNOWN_BAD
from nuclei.data.prepared_images import Images
from nuclei.io.files import write_csv
from nuclei.io.images import read_label_map, write_label_map
from nuclei.reporting.eda.page import choose_sheets, close_up, draw_finding
from nuclei.reporting.eda.statistics import collect_statistics
from nuclei.reporting.eda.tables import fold_table, overview, present_modalities, size_table

ROOT = Path(__file__).parents[3]
SECTIONS = ("modalities", "sizes", "sources", "nuclei", "touching", "suspicious", "known", "sheets")
OVERLAP = "image05"


def spoil(folder):
    """Makes a hole of 9 pixels in the largest nucleus of image00, and returns its label."""
    path = folder / "labels/image00.png"
    label_map = read_label_map(path)
    largest = int(np.bincount(label_map[1:-1, 1:-1].ravel())[1:].argmax()) + 1
    rows, columns = np.nonzero(label_map == largest)
    row, column = int(np.median(rows)), int(np.median(columns))
    label_map[row - 1 : row + 2, column - 1 : column + 2] = 0
    write_label_map(path, label_map)
    return largest


@pytest.fixture(scope="module")
def folder(processed, tmp_path_factory):
    """A data folder: image00 has a hole in a nucleus, image05 had two contested pixels."""
    folder = tmp_path_factory.mktemp("survey")
    shutil.copytree(processed, folder / "processed")
    spoil(folder / "processed")
    index = Images(folder / "processed").index
    train = index[index.subset == "train"]
    write_csv(
        folder / "splits.csv",
        train[["image_id", "group", "modality", "nuclei"]].assign(fold=[0, 1] * 4),
    )
    settled = pd.DataFrame({"image_id": train.image_id, "contested_pixels": 0, "left_out": ""})
    settled.loc[settled.image_id == OVERLAP, "contested_pixels"] = 2
    write_csv(folder / "processed/settled.csv", settled)
    (folder / "raw").mkdir()
    (folder / "raw/manifest.csv").write_text("made by a test\n")
    os.utime(folder / "raw/manifest.csv", (0, 0))
    return folder


@pytest.fixture(scope="module")
def statistics(folder):
    return collect_statistics(folder / "processed", folder / "splits.csv")


def make_eda(python, folder, page):
    arguments = [f"DATA={folder}", f"EDA={page}", f"PYTHON={python}"]
    return subprocess.run(
        ["make", "eda", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def write_page(folder, page, *options):
    arguments = ["--processed", folder / "processed", "--workers", 1]
    arguments += ["--page", page, "--table", page.with_suffix(".csv"), *options]
    answer = run_script("eda.py", *arguments)
    assert answer.returncode == 0, answer.stderr
    return page


@pytest.fixture(scope="module")
def page(folder, warm_python):
    make_eda(warm_python, folder, folder / "eda.html")
    return folder / "eda.html"


def test_the_same_command_again_does_nothing_and_after_new_folds_does_it_anew(folder, page, warm_python):
    assert "Nothing to be done" in make_eda(warm_python, folder, page)
    later = page.stat().st_mtime + 10
    os.utime(folder / "splits.csv", (later, later))
    assert "Nothing to be done" not in make_eda(warm_python, folder, page)


def test_the_table_has_a_row_for_each_image_and_the_nuclei_of_its_label_map(folder, page):
    table = pd.read_csv(page.with_suffix(".csv"))
    images = Images(folder / "processed")
    assert list(table.image_id) == list(images.index.image_id)
    for row in table[table.subset == "train"].itertuples():
        areas = np.bincount(images.label_map(row.image_id).ravel())[1:]
        assert (row.nuclei, row.area_smallest, row.area_largest) == (
            len(areas),
            areas.min(),
            areas.max(),
        )
        assert row.area_median == np.median(areas)
    assert table[table.subset == "test"][["fold", "nuclei", "touching", "suspicions"]].isna().all(axis=None)


def test_what_was_spoilt_is_named_with_its_image_in_the_table_and_on_the_page(page):
    table = pd.read_csv(page.with_suffix(".csv")).set_index("image_id")
    assert "hole" in table.suspicions["image00"]
    assert "overlap" in table.suspicions[OVERLAP]
    assert table.contested_pixels[OVERLAP] == 2
    rows = re.findall(r'<tr data-reason="(\w+)".*?<code>(\w+)</code>', page.read_text(), re.DOTALL)
    assert ("hole", "image00") in rows
    assert ("overlap", OVERLAP) in rows


def test_overlaps_that_nobody_counted_are_not_said_to_be_none(folder, page, tmp_path):
    shutil.copytree(folder / "processed", tmp_path / "processed")
    (tmp_path / "processed/settled.csv").unlink()
    text = write_page(tmp_path, tmp_path / "eda.html").read_text()
    assert "were not recorded" in text
    assert "were not recorded" not in page.read_text()
    assert pd.read_csv(tmp_path / "eda.csv").contested_pixels.isna().all()


def test_an_image_known_to_be_badly_annotated_is_reported(folder, tmp_path):
    index = pd.read_csv(folder / "processed/index.csv", dtype=str, keep_default_na=False)
    bad, fault = KNOWN_BAD[0]
    renamed = index.assign(image_id=index.image_id.replace("image03", bad))
    shutil.copytree(folder / "processed", tmp_path / "processed")
    (tmp_path / "processed/settled.csv").unlink()
    write_csv(tmp_path / "processed/index.csv", renamed)
    findings = collect_statistics(tmp_path / "processed", None).findings
    assert findings[findings.reason == "known"][["image_id", "words"]].to_numpy().tolist() == [[bad, fault]]


def test_a_training_set_without_folds_is_one_place(folder):
    statistics = collect_statistics(folder / "processed", None)
    table = fold_table(statistics.images, present_modalities(statistics.images))
    assert table["names"] == ["train", "test"]
    assert not table["has_folds"]
    assert {sheet["place"] for sheet in choose_sheets(statistics.images, 2)} == {"train", "test"}


def test_every_image_is_counted_once_by_modality_by_fold_and_by_size(statistics):
    modalities = present_modalities(statistics.images)
    rows = {row["name"]: row["counts"] for row in fold_table(statistics.images, modalities)["rows"]}
    by_modality = np.sum([rows[name.replace("_", " ")] for name in modalities], axis=0)
    assert by_modality.tolist() == rows["images"] == [4, 4, 2]
    assert sum(row["train"] + row["test"] for row in size_table(statistics.images)) == 10
    *parts, whole = overview(statistics, modalities)
    for name in ("train", "test", "nuclei"):
        assert sum(part[name] for part in parts) == whole[name]
    assert whole["nuclei"] == len(statistics.nuclei) == statistics.images.nuclei.sum()


def test_fractions_of_touching_are_those_of_the_nuclei(statistics):
    whole = overview(statistics, present_modalities(statistics.images))[-1]
    assert whole["touching"] == pytest.approx(statistics.images.touching.sum() / statistics.images.nuclei.sum())
    assert 0 < whole["boundary"] < whole["touching"] < 1


def test_a_sheet_holds_its_own_images_and_one_tile_of_a_picture_while_there_are_others():
    images = pd.DataFrame(
        {"image_id": [f"i{n:02d}" for n in range(12)], "group": ["a"] * 6 + ["b"] * 3 + list("cde")}
    )
    images = images.assign(
        subset="train", fold=pd.array([0] * 12, "Int64"), modality="grey_tissue", nuclei=range(12)
    )
    for count, groups in ((3, 3), (5, 5), (8, 5), (40, 5)):
        (sheet,) = choose_sheets(images, count)
        chosen = images.set_index("image_id").loc[sheet["images"]]
        assert len(chosen) == min(count, 12)
        assert chosen.group.nunique() == groups
        assert chosen.nuclei.is_monotonic_increasing
    fold = images.fold.where(images.index < 5, 1)
    for sheet in choose_sheets(images.assign(fold=fold), 3):
        assert set(sheet["images"]) <= set(images.image_id[fold == int(sheet["place"][-1])])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_a_close_up_lies_in_the_image_and_holds_what_is_meant(height, width, data):
    mask = np.zeros((height, width), bool)
    for _ in range(data.draw(st.integers(0, 3))):
        mask[data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))] = True
    shown = mask[close_up(mask)]
    assert shown.sum() == mask.sum()
    assert shown.size > 0


def test_a_close_up_marks_the_nucleus_with_the_hole(folder, statistics):
    finding = statistics.findings[statistics.findings.reason == "hole"].iloc[0]
    picture = draw_finding(Images(folder / "processed"), finding)
    assert picture["kinds"].count("m") == 1
    assert len(picture["kinds"]) == len(picture["truth"])
    assert len(picture["found"]) == 1


def test_the_page_holds_every_section_and_asks_no_network_for_anything(page):
    text = page.read_text()
    assert re.findall(r'<section id="(\w+)">', text) == list(SECTIONS)
    assert re.findall(r"""(?:src|href)=["'](?!data:|#|\$\{)[^"']+""", text) == []
    assert not re.search(r"https?://(?!www\.w3\.org/)|@import|fetch\(", text)


def test_the_room_for_pictures_is_kept(folder, page):
    small = write_page(folder, folder / "small.html", "--megabytes", "0.02")
    assert small.stat().st_size < page.stat().st_size
    assert 1 <= small.read_text().count("data:image/webp") < page.read_text().count("data:image/webp")


def test_a_modality_and_a_fold_narrow_sheets_findings_and_charts(opened, statistics):
    choose(opened, "#modality", "purple_tissue")
    choose(opened, "#place", "fold 1")
    sheets = find(opened, "#sheet-list .sheet")
    assert [(sheet.get_attribute("data-modality"), sheet.get_attribute("data-place")) for sheet in sheets] == [
        ("purple_tissue", "fold 1")
    ]
    own = statistics.images[(statistics.images.modality == "purple_tissue") & (statistics.images.fold == 1)]
    assert [figure.get_attribute("data-image") for figure in find(opened, "#sheet-list figure")] == list(
        own.sort_values("nuclei").image_id
    )
    assert find(opened, "#range-area svg")[0].get_attribute("data-rows") == "1"
    assert all("purple tissue, fold 1" in caption for caption in column(opened, "#findings figcaption"))


def test_a_reason_shows_its_findings_alone_with_the_nucleus_outlined(opened):
    choose(opened, "#reason", "hole")
    figures = find(opened, "#findings figure")
    assert "image00" in [figure.get_attribute("data-image") for figure in figures]
    assert {figure.get_attribute("data-reason") for figure in figures} == {"hole"}
    assert all(find(figure, "path.missed") for figure in figures)
    shown = [row for row in find(opened, "#all-findings tbody tr") if not row.get_property("hidden")]
    assert len(shown) == len(figures)


def test_outlines_can_be_taken_off(opened):
    assert find(opened, "#sheet-list path")
    choose(opened, "#layer", "none")
    assert not find(opened, "#sheet-list path")
    assert find(opened, "#sheet-list image")


@pytest.mark.parametrize("width", [390, 1280, 1400])
def test_nothing_sticks_out_of_the_window(opened, width):
    widen(opened, width)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
