"""Pages made of hostile data run none of it: names are text, the policy refuses other code."""

import json
import re

import pandas as pd
import pytest
from browsing import choose, click, column, find
from sample_runs import write_runs

from nuclei.data.prepared_images import Images
from nuclei.io.files import read_json, write_csv, write_text
from nuclei.reporting.eda.page import data_page
from nuclei.reporting.eda.statistics import collect_statistics
from nuclei.reporting.html_report import report_page
from nuclei.reporting.leaderboard import leaderboard
from nuclei.reporting.rendering import render, table_line
from nuclei.reporting.score_records import comparable, read_records

IMAGE_IDS = [
    'a"><img src=x onerror=window.ran=1>',
    "</script><script>window.ran=1</script>",
    "=1+1",
    "__proto__",
    "</style><svg onload=window.ran=1>",
    "'-window.ran=1-'${window.ran=1}",
    "<!--<script>",
    "{{ 1 + 1 }}",
]
EXPERIMENTS = {
    "first": 'x"><img src=y onerror=window.ran=1>',
    "second": "constructor",
    "third": "<svg onload=window.ran=1>",
}
"""Names of the runs as they are made, and the hostile ones that take their place."""
INJECTED = (
    "<script>window.ran=1</script><img src=x onerror=window.ran=1><p id=inserted onclick=window.ran=1>here</p>"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    write_runs(folder, dict(zip(EXPERIMENTS, (0.1, 0.4, 0.05), strict=True)), image_ids=IMAGE_IDS)
    images = Images(folder / "processed").index
    write_csv(
        folder / "processed" / "index.csv", images.assign(source=["<img src=x onerror=window.ran=1>"] * 10)
    )
    masks = pd.DataFrame(
        {"image_id": images.image_id, "contested_pixels": 3, "left_out": f"{IMAGE_IDS[0]}.png"}
    )
    write_csv(folder / "processed" / "settled.csv", masks)
    return folder


@pytest.fixture(scope="module")
def report(folder):
    records = []
    for record in read_records(folder / "runs", folder / "scores"):
        # names are checked when they are read; a page does not rely on that
        hostile = EXPERIMENTS.get(record.experiment, record.experiment)
        (folder / "runs" / record.experiment).rename(folder / "runs" / hostile)
        records.append(record.model_copy(update={"experiment": hostile}))
    compared = comparable(records, folder / "runs")
    text = report_page(
        leaderboard(records, compared, {}), compared, folder / "runs", folder / "processed", 6, 12
    )
    write_text(folder / "report.html", text)
    return folder / "report.html"


@pytest.fixture(scope="module")
def eda(folder):
    statistics = collect_statistics(folder / "processed", folder / "splits.csv")
    write_text(folder / "eda.html", data_page(statistics, Images(folder / "processed"), 8, 12))
    return folder / "eda.html"


def nothing_ran(browser):
    kinds = {element.tag_name for element in find(browser, "body *")}
    return browser.execute_script("return window.ran") is None and not kinds & {"img", "iframe", "object"}


def test_hostile_names_are_text_in_the_report(browser, report):
    browser.get(report.as_uri())
    assert set(column(browser, "#ranking tbody th")) == {*EXPERIMENTS.values(), "otsu"}
    assert {option.get_property("value") for option in find(browser, "#image option")} >= set(IMAGE_IDS)
    for name in EXPERIMENTS.values():
        choose(browser, "#gallery-experiment", name)
        shown = [figure.get_attribute("data-image") for figure in find(browser, "#cards figure")]
        assert set(shown) & set(IMAGE_IDS)
        choose(browser, "#right", name)
        assert name in find(browser, "#pair-right figcaption")[0].get_property("textContent")
    for image_id in IMAGE_IDS:
        choose(browser, "#image", image_id)
        assert find(browser, "#pair-left span")[0].get_attribute("title") == image_id
    for modality in [option.get_property("value") for option in find(browser, "#modality option")]:
        choose(browser, "#modality", modality)
    for box in find(browser, "#chips input"):
        click(browser, box)
    browser.refresh()
    assert nothing_ran(browser)
    assert browser.get_log("browser") == []


def test_hostile_names_are_text_on_the_page_of_the_data(browser, eda):
    browser.get(eda.as_uri())
    sheets = {figure.get_attribute("data-image") for figure in find(browser, "#sheet-list figure")}
    assert sheets >= set(IMAGE_IDS)
    assert set(column(browser, "#all-findings code")) >= set(IMAGE_IDS)
    assert column(browser, "#sources tbody th") == ["<img src=x onerror=window.ran=1>"]
    assert "<img src=x" in find(browser, "#source-list b")[0].get_property("textContent")
    choose(browser, "#reason", "left out")
    assert any(IMAGE_IDS[0] in caption for caption in column(browser, "#findings figcaption"))
    assert nothing_ran(browser)
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("name", ["report", "eda"])
def test_code_that_gets_into_a_page_is_refused_by_its_policy(browser, request, name):
    page = request.getfixturevalue(name)
    write_text(page.with_name("injected.html"), page.read_text().replace("</main>", f"{INJECTED}</main>"))
    browser.get(page.with_name("injected.html").as_uri())
    click(browser, find(browser, "#inserted")[0])
    assert browser.execute_script("return window.ran") is None
    insert = "try { document.body.innerHTML = '<p>x</p>'; return false } catch (error) { return true }"
    assert browser.execute_script(insert)
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


def test_the_policy_opens_no_network(report):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', report.read_text()).group(1)
    assert policy.startswith("default-src &#39;none&#39;")
    assert "unsafe" not in policy
    assert not re.search(r"https?:|\*", policy)


def test_a_number_that_json_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        render("base.html", "report.js", {"score": float("nan")}, commit="")


def test_a_bar_in_a_cell_does_not_end_it():
    assert table_line(["a|b", "c"]) == "| a\\|b | c |"


def test_the_data_come_back_as_they_were(report, folder):
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', report.read_text()).group(1)
    name = EXPERIMENTS["first"]
    images = read_json(folder / "runs" / name / "cv.json")["image"]
    assert {image["id"] for image in json.loads(data)["images"]} == set(images)
