"""The report in a real browser: what a person clicks changes what the page shows. Skipped where no Chromium is."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from browsing import choose, click, column, find, widen
from sample_runs import write_runs

from nuclei.io.files import read_json
from nuclei.reporting.score_records import read_scores

ROOT = Path(__file__).parents[2]
EXPERIMENTS = {"careful": 0.1, "careless": 0.5, "both": 0.05}


def write_report(folder, out, *options):
    places = ["--runs", folder / "runs", "--submissions", folder / "submissions", "--processed", folder / "processed"]
    command = [sys.executable, ROOT / "scripts/report.py", *places, "--out", out, *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run([str(part) for part in command], check=True, env=environment, capture_output=True)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_runs(folder, EXPERIMENTS)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return write_report(folder, folder / "report.html", "--images", "3")


def test_a_click_on_a_heading_sorts_and_another_one_turns_the_order(opened, folder):
    heading = find(opened, "#leaderboard thead button")[4]
    assert heading.text == "AP 0.50"
    names = [*EXPERIMENTS, "otsu"]
    ap = {name: read_json(folder / "runs" / name / "cv.json")["ap"]["0.50"] for name in names}
    for descending in (True, False):
        click(opened, heading)
        shown = [ap[name] for name in column(opened, "#leaderboard tbody th")]
        assert shown == sorted(ap.values(), reverse=descending)


def test_a_modality_narrows_images_and_charts_to_its_own(opened):
    choose(opened, "#modality", "grey_tissue")
    assert "2 images of grey tissue" in find(opened, "#parts-note")[0].text
    captions = column(opened, "#cards figcaption")
    assert captions
    assert all("grey tissue" in caption for caption in captions)
    assert find(opened, "#by-modality svg")[0].get_attribute("data-rows") == "1"


def test_a_hidden_experiment_leaves_tables_charts_and_choices(opened):
    before = int(find(opened, "#curve-loss svg")[0].get_attribute("data-lines"))
    click(opened, find(opened, '#chips input[value="careless"]')[0])
    assert int(find(opened, "#curve-loss svg")[0].get_attribute("data-lines")) == before - 2
    assert all(row.get_property("hidden") for row in find(opened, 'tr[data-experiment="careless"]'))
    assert "careless" not in column(opened, "#left option")


def test_the_worst_images_of_another_experiment_are_its_own(opened, folder):
    choose(opened, "#gallery-experiment", "careless")
    images = read_json(folder / "runs/careless/cv.json")["image"]
    worst = sorted(images, key=lambda image_id: (sum(images[image_id]["ap"]), image_id))
    shown = [figure.get_attribute("data-image") for figure in find(opened, "#cards figure")]
    assert shown[:3] == worst[:3]
    record = images[worst[0]]
    assert f"{record['nuclei']} nuclei, {record['predicted']} predicted" in find(opened, "#cards figcaption")[0].text
    assert find(opened, "#cards figure svg.picture path.missed")


def test_the_layers_show_errors_or_annotation_or_nothing(opened):
    for layer, paths in (("truth", {"hit"}), ("predicted", {"extra"}), ("none", set())):
        choose(opened, ".layer", layer)
        drawn = find(opened, "#pair-left path, #pair-right path")
        assert {path.get_attribute("class") for path in drawn} == paths


def test_a_click_on_an_image_puts_two_experiments_side_by_side(opened, folder):
    choose(opened, "#left", "careful")
    choose(opened, "#right", "otsu")
    chosen = find(opened, "#cards figure")[1]
    image_id = chosen.get_attribute("data-image")
    click(opened, chosen)
    for side in ("left", "right"):
        name = find(opened, f"#{side}")[0].get_property("value")
        score = sum(read_json(folder / "runs" / name / "cv.json")["image"][image_id]["ap"]) / 10
        assert find(opened, f"#pair-{side} svg")[0].get_attribute("data-image") == image_id
        assert f"{score:.3f}" in find(opened, f"#pair-{side}")[0].text
    click(opened, find(opened, "#next")[0])
    assert find(opened, "#pair-left svg")[0].get_attribute("data-image") != image_id


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_sticks_out_of_the_window(opened, width):
    widen(opened, width)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width


def test_the_page_of_a_clone_with_scores_alone_is_whole(browser, folder, page, tmp_path):
    shutil.copytree(folder / "submissions", tmp_path / "submissions")
    clone = write_report(tmp_path, tmp_path / "clone.html")
    browser.get(clone.as_uri())
    assert column(browser, "#leaderboard tbody th") == sorted(
        column(browser, "#leaderboard tbody th"),
        key=lambda name: -read_scores(folder / "submissions/scores" / f"{name}.json")["score"],
    )
    assert len(find(browser, "#leaderboard tbody tr")) == 4
    assert "without pictures" in find(browser, "#gallery-note")[0].text
    assert not find(browser, "#cards image")
    assert browser.get_log("browser") == []


def test_the_page_asks_no_network_for_anything(page):
    text = page.read_text()
    assert re.findall(r"""(?:src|href)=["'](?!data:|#|\$\{)[^"']+""", text) == []
    assert "@import" not in text
    assert "fetch(" not in text


def test_the_room_for_images_is_kept(folder, page, tmp_path):
    small = write_report(folder, tmp_path / "small.html", "--megabytes", "0.03")
    assert small.stat().st_size < page.stat().st_size
    assert 1 <= small.read_text().count("data:image/webp") < page.read_text().count("data:image/webp")
