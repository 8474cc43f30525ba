"""The report in a real browser: clicks change what the page shows. Skipped without Chromium."""

import re
from pathlib import Path

import pytest
from browsing import choose, click, column, find, widen
from sample_runs import write_runs
from script_runs import run_script
from selenium.webdriver import ActionChains, Keys

from nuclei.io.files import read_json
from nuclei.reporting.score_records import read_scores, record_scores

ROOT = Path(__file__).parents[2]
EXPERIMENTS = {"careful": 0.1, "careless": 0.5, "both": 0.05}


def write_report(folder, out, *options):
    places = [
        "--runs",
        folder / "runs",
        "--submissions",
        folder / "submissions",
        "--processed",
        folder / "processed",
    ]
    answer = run_script("report.py", *places, "--out", out, *options)
    assert answer.returncode == 0, answer.stderr
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
    heading = find(opened, "#ranking thead button")[4]
    assert heading.text == "AP 0.50"
    names = [*EXPERIMENTS, "otsu"]
    ap = {name: read_json(folder / "runs" / name / "cv.json")["ap"]["0.50"] for name in names}
    for descending in (True, False):
        click(opened, heading)
        shown = [ap[name] for name in column(opened, "#ranking tbody th")]
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
    assert (
        f"{record['nuclei']} nuclei, {record['predicted']} predicted"
        in find(opened, "#cards figcaption")[0].text
    )
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


@pytest.mark.parametrize("width", [390, 1280, 1400])
def test_nothing_sticks_out_of_the_window(opened, width):
    widen(opened, width)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width


def test_no_column_of_a_table_is_cut_off_at_1280_pixels(opened):
    widen(opened, 1280)
    hidden = "return [...document.querySelectorAll('.scroll')].map((box) => box.scrollWidth - box.clientWidth)"
    assert max(opened.execute_script(hidden)) <= 0


def test_the_modality_filter_ranks_by_it_and_scrolls_its_column_into_view(opened, folder):
    widen(opened, 390)
    before = column(opened, "#ranking tbody th")
    choose(opened, "#modality", "small_fluorescence")
    scores = {
        name: read_json(folder / "runs" / name / "cv.json")["modality"]["small_fluorescence"]["score"]
        for name in [*EXPERIMENTS, "otsu"]
    }
    assert [scores[name] for name in column(opened, "#ranking tbody th")] == sorted(
        scores.values(), reverse=True
    )
    heading = find(opened, '#ranking th[data-modality="small_fluorescence"]')[0].rect
    first = find(opened, "#ranking thead th")[0].rect
    assert first["x"] + first["width"] <= heading["x"]
    assert heading["x"] + heading["width"] <= 390
    choose(opened, "#modality", "")
    assert column(opened, "#ranking tbody th") == before


def test_side_by_side_opens_with_the_best_two_experiments(opened):
    best = column(opened, "#ranking tbody th")[:2]
    assert [find(opened, f"#{side}")[0].get_property("value") for side in ("left", "right")] == best
    click(opened, find(opened, f'#chips input[value="{best[0]}"]')[0])
    sides = [find(opened, f"#{side}")[0].get_property("value") for side in ("left", "right")]
    assert len(set(sides) - {best[0]}) == 2


def focused_image(browser):
    return browser.switch_to.active_element.get_attribute("data-image")


def test_arrow_keys_move_among_the_cards_and_enter_opens_one(opened):
    cards = find(opened, "#cards figure")
    ids = [card.get_attribute("data-image") for card in cards]
    assert [card.get_attribute("tabindex") for card in cards] == ["0"] + ["-1"] * (len(cards) - 1)
    cards[0].send_keys(Keys.ARROW_RIGHT)
    assert focused_image(opened) == ids[1]
    cards[1].send_keys(Keys.END)
    assert focused_image(opened) == ids[-1]
    cards[-1].send_keys(Keys.HOME, Keys.ARROW_LEFT)
    assert focused_image(opened) == ids[0]
    columns = len({card.rect["x"] for card in cards})
    cards[0].send_keys(Keys.ARROW_DOWN)
    assert focused_image(opened) == ids[columns]
    find(opened, "#cards figure")[columns].send_keys(Keys.ENTER)
    assert find(opened, "#image")[0].get_property("value") == ids[columns]


def view_boxes(browser):
    boxes = [find(browser, f"#pair-{side} svg")[0].get_dom_attribute("viewBox") for side in ("left", "right")]
    return [[float(number) for number in box.split()] for box in boxes]


def test_zoom_and_pan_move_both_pictures_and_stay_inside_the_image(opened):
    click(opened, find(opened, "#zoom-in")[0])
    left, right = view_boxes(opened)
    assert left == right == pytest.approx([128 / 6, 128 / 6, 128 / 1.5, 128 / 1.5])
    picture = find(opened, "#pair-right svg")[0]
    picture.send_keys("+", *[Keys.ARROW_LEFT] * 20)
    left, right = view_boxes(opened)
    assert left == right == pytest.approx([0, (128 - 128 / 2.25) / 2, 128 / 2.25, 128 / 2.25])
    ActionChains(opened).drag_and_drop_by_offset(picture, -20, 0).perform()
    assert view_boxes(opened)[0][0] == pytest.approx(20 / picture.rect["width"] * 128 / 2.25, rel=0.02)
    picture.send_keys("0")
    assert view_boxes(opened) == [[0, 0, 128, 128]] * 2


def shown_state(browser):
    ids = ("modality", "found", "against", "gallery-experiment", "gallery-order", "left", "right", "image")
    values = [find(browser, f"#{name}")[0].get_property("value") for name in ids]
    hidden = [box.get_property("value") for box in find(browser, "#chips input") if not box.is_selected()]
    return values, hidden, view_boxes(browser), column(browser, "#ranking tbody th")


def test_the_address_opens_the_page_as_it_was(opened):
    initial = shown_state(opened)
    click(opened, find(opened, '#chips input[value="careful"]')[0])
    choose(opened, "#modality", "purple_tissue")
    choose(opened, "#left", "otsu")
    choose(opened, "#gallery-order", "best")
    choose(opened, ".layer", "truth")
    click(opened, find(opened, "#next")[0])
    click(opened, find(opened, "#zoom-in")[0])
    click(opened, find(opened, "#ranking thead button")[0])
    chosen, address = shown_state(opened), opened.current_url
    opened.get("about:blank")
    opened.get(address)
    assert shown_state(opened)[:2] == chosen[:2] != initial[:2]
    for shown, before in zip(shown_state(opened)[2], chosen[2], strict=True):
        assert shown == pytest.approx(before, abs=0.2)
    assert shown_state(opened)[3] == chosen[3]
    assert {path.get_attribute("class") for path in find(opened, "#cards path")} == {"hit"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_light_and_dark(opened, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    style = opened.execute_script(
        "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    )
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    ink, paper = (luminance([int(part) for part in re.findall(r"\d+", colour)]) for colour in style)
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7  # WCAG 2, level AAA
    assert (paper > ink) == (scheme == "light")


def luminance(rgb):
    """Relative luminance of an sRGB colour as WCAG 2 defines it."""
    linear = [(v / 255 / 12.92) if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_report_writes_its_page_and_nothing_else(folder, page):
    assert page.is_file()
    assert not (folder / "submissions").exists()


def test_the_page_of_a_clone_with_scores_alone_is_whole(browser, folder, page, tmp_path):
    record_scores(folder / "runs", tmp_path / "submissions" / "scores")
    clone = write_report(tmp_path, tmp_path / "clone.html")
    browser.get(clone.as_uri())
    assert column(browser, "#ranking tbody th") == sorted(
        column(browser, "#ranking tbody th"),
        key=lambda name: -read_scores(tmp_path / "submissions/scores" / f"{name}.json").score,
    )
    assert len(find(browser, "#ranking tbody tr")) == 4
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
