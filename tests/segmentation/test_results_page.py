"""The results page in a browser: what it shows, how it is used, and the corrections that it gives back."""

import base64
import json

import numpy as np
import pytest
import tifffile
from browsing import click, column, find, widen

from nuclei.io.picture import Picture, PixelSize
from nuclei.segmentation import preview
from nuclei.segmentation.exports import export_plane
from nuclei.segmentation.measurements import list_nuclei
from nuclei.segmentation.outlines import find_polygons, ring_area
from nuclei.segmentation.results import SummaryRow
from nuclei.segmentation.results_page import write_page
from nuclei.synthetic.images import make_image

HOSTILE = '<img src=x onerror="document.title=1">'
IMAGE, LABELS = make_image("small_fluorescence", 3, 120, 160)
LABELS = LABELS.astype(np.int32)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    rows = []
    for name, size in (("first", PixelSize(0.5, 0.5)), ("second", None)):
        count = int(LABELS.max())
        export_plane(Picture(name, IMAGE, size, notes=("a note",)), LABELS, count, out)
        rows.append(
            SummaryRow(image=name, file=f"{name}.tif", height=120, width=160, nuclei=count, notes="a note")
        )
    rows.append(SummaryRow(file=HOSTILE, status="failed", notes=f"broken {HOSTILE}"))
    write_page(out, rows)
    return out / "index.html"


@pytest.fixture
def plane(opened):
    """The page with its first plane open, and a call of JavaScript in it."""
    click(opened, find(opened, "#planes button")[0])
    return lambda script: opened.execute_script(f"return {script}")


def test_every_plane_has_a_thumbnail_with_its_count(opened):
    assert [text.removesuffix(" nuclei") for text in column(opened, "#planes span")] == [
        f"{name}{LABELS.max()}" for name in ("first", "second")
    ]


def test_what_gave_no_result_is_listed_as_text(opened):
    assert column(opened, "#other-rows td") == [HOSTILE, "failed", f"broken {HOSTILE}"]
    assert opened.title == "Nuclei: results"


def test_the_page_has_a_policy_that_lets_nothing_in(page):
    text = page.read_text()
    assert "default-src 'none'" in text
    assert "unsafe-inline" not in text
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")


def test_a_plane_opens_with_table_outlines_and_histograms(opened, plane):
    assert len(find(opened, "#nuclei tbody tr")) == LABELS.max()
    assert "Area, µm²" in column(opened, "#nuclei th")
    assert find(opened, "#area-chart rect")
    assert find(opened, "#intensity-chart rect")
    assert plane("plane.nuclei.length") == LABELS.max()


def test_a_row_of_the_table_chooses_its_nucleus_and_a_nucleus_its_row(opened, plane):
    row = find(opened, "#nuclei tbody tr")[2]
    click(opened, row)
    label = int(row.get_attribute("data-label"))
    assert plane("[...chosen]") == [label]
    at = "(() => { const n = plane.nuclei[0], b = canvas.getBoundingClientRect(); fit();"
    at += "const [x, y] = [n.rings[0][0] + 0.5, n.rings[0][1] + 0.5];"
    at += "const o = {clientX: b.left + view.x + x * view.scale, clientY: b.top + view.y + y * view.scale,"
    at += "pointerId: 1, bubbles: true}; for (const k of ['pointerdown', 'pointerup'])"
    at += "canvas.dispatchEvent(new PointerEvent(k, o)); return [...chosen]; })()"
    assert plane(at) == [int(find(opened, "#nuclei tr.chosen")[0].get_attribute("data-label"))]


def test_the_table_is_sorted_by_a_column(opened, plane):
    click(opened, find(opened, "#nuclei th button")[1])
    areas = [float(row.find_elements("css selector", "td")[1].text) for row in find(opened, "#nuclei tbody tr")]
    assert areas == sorted(areas)


def key(plane, name):
    plane(f"dispatchEvent(new KeyboardEvent('keydown', {{key: '{name}'}}))")


def test_keys_do_what_the_buttons_do(opened, plane):
    key(plane, "o")
    assert plane("outlinesShown") is False
    before = plane("view.scale")
    key(plane, "+")
    assert plane("view.scale") > before
    key(plane, "ArrowRight")
    assert find(opened, "#title")[0].text.startswith("second")


def label_map_of(plane, tmp_path):
    """The label map that the page would save."""
    binary = (
        "labelTiff().map((part) => Array.from(new Uint8Array(part), (b) => String.fromCharCode(b)).join(''))"
    )
    text = plane(f"btoa({binary}.join(''))")
    (tmp_path / "saved.tif").write_bytes(base64.b64decode(text))
    return tifffile.imread(tmp_path / "saved.tif").astype(np.int32)


def test_the_label_map_of_the_page_is_the_one_that_was_written(plane, tmp_path):
    assert np.array_equal(label_map_of(plane, tmp_path), LABELS)


def test_the_outlines_that_the_page_traces_are_those_of_the_exports(plane):
    for polygons in find_polygons(list(list_nuclei(LABELS, LABELS))):
        rings = [ring for polygon in polygons for ring in polygon]
        given = json.dumps([ring.ravel().tolist() for ring in rings])
        traced = plane(f"(() => {{ const r = {given}, b = boxOf(r); return trace(rasterise(r, b), b); }})()")
        areas = sorted(ring_area(np.array(ring).reshape(-1, 2)) for ring in traced)
        assert areas == sorted(ring_area(ring) for ring in rings)


def test_a_deleted_nucleus_is_gone_and_comes_back(plane, tmp_path):
    plane("choose(1, false, false)")
    key(plane, "Delete")
    corrected = label_map_of(plane, tmp_path)
    assert not corrected[LABELS == 1].any()
    assert corrected.max() == LABELS.max() - 1
    key(plane, "z")
    assert np.array_equal(label_map_of(plane, tmp_path), LABELS)


def test_joined_nuclei_are_one(plane, tmp_path):
    plane("(choose(1, false, false), choose(2, true, false), joinChosen())")
    corrected = label_map_of(plane, tmp_path)
    (label,) = np.unique(corrected[(LABELS == 1) | (LABELS == 2)])
    assert np.array_equal(corrected == label, (LABELS == 1) | (LABELS == 2))
    assert corrected.max() == LABELS.max() - 1


def test_a_line_splits_a_nucleus_in_two(plane, tmp_path):
    rows, columns = np.nonzero(LABELS == 1)
    x = columns.mean() + 0.51
    plane(f"splitBy([{x}, {rows.min() - 3}], [{x}, {rows.max() + 3}])")
    corrected = label_map_of(plane, tmp_path)
    assert len(np.unique(corrected[LABELS == 1])) == 2
    assert ((corrected > 0) == (LABELS > 0)).all()


def test_a_drawn_nucleus_takes_free_pixels_alone(plane, tmp_path):
    plane("drawAround([[0, 0], [60, 0], [60, 60], [0, 60]])")
    corrected = label_map_of(plane, tmp_path)
    assert np.array_equal(
        corrected == corrected.max(), (LABELS == 0) & (np.indices(LABELS.shape) < 60).all(axis=0)
    )


def test_corrections_as_geojson_are_closed_polygons_with_labels_from_one(plane):
    plane("(choose(1, false, false), deleteChosen())")
    features = json.loads(plane("geojsonText()"))["features"]
    assert [feature["properties"]["measurements"]["Label"] for feature in features] == list(
        range(1, LABELS.max())
    )
    assert all(ring[0] == ring[-1] for feature in features for ring in feature["geometry"]["coordinates"])


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, page):
    browser.get(page.as_uri())
    widen(browser, 390)
    click(browser, find(browser, "#planes button")[0])
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    widen(browser, 1200)


def test_of_too_many_nuclei_the_first_are_shown_and_none_is_corrected(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "MOST", 3)
    export_plane(Picture("many", IMAGE), LABELS, int(LABELS.max()), tmp_path)
    write_page(tmp_path, [SummaryRow(image="many", file="many.tif", nuclei=int(LABELS.max()))])
    browser.get((tmp_path / "index.html").as_uri())
    assert f"the first 3 of {LABELS.max()} nuclei" in find(browser, "#title")[0].text
    assert not find(browser, "#save-labels")[0].is_enabled()
    browser.execute_script("choose(1, false, false); deleteChosen()")
    assert browser.execute_script("return plane.nuclei.length") == 3


def test_two_thousand_nuclei_in_a_large_picture_are_drawn_fast(browser, tmp_path):
    label_map = np.zeros((4000, 4000), np.int32)
    for label in range(1, 2001):
        row, column_ = divmod(label - 1, 45)
        label_map[row * 88 : row * 88 + 40, column_ * 88 : column_ * 88 + 40] = label
    pixels = (label_map > 0).astype(np.uint8) * 200
    export_plane(Picture("large", pixels), label_map, 2000, tmp_path)
    write_page(tmp_path, [SummaryRow(image="large", file="large.tif", height=4000, width=4000, nuclei=2000)])
    browser.get((tmp_path / "index.html").as_uri())
    script = "plane.image.decode().then(() => { const begin = performance.now();"
    script += (
        "for (let i = 0; i < 10; i++) { view.x += 1; paint(); } return (performance.now() - begin) / 10; })"
    )
    assert browser.execute_script(f"return {script}") < 100
    assert browser.get_log("browser") == []
