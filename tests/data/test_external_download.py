"""Public sets in their real layouts become images/ and labels/, less the competition's."""

import hashlib
import io
import json

import cv2
import numpy as np
import pytest
import tifffile
from kaggle_server import StandIn, file_answer
from sample_archives import make_zip

from nuclei.cli import EXTERNAL_SETS
from nuclei.data.external_download import (
    competition_thumbnails,
    known_sets,
    prepare_set,
    read_public_sets,
)
from nuclei.data.external_sets import ExternalSet, add_external
from nuclei.data.near_duplicates import find_duplicates, thumbnail
from nuclei.data.splits import Fold
from nuclei.errors import UserError
from nuclei.synthetic.images import make_image

FILES = {
    "bbbc039": ["images.zip", "masks.zip"],
    "tnbc": ["TNBC_NucleiSegmentation.zip"],
    "nuinsseg": ["NuInsSeg.zip"],
}


def png(pixels):
    return cv2.imencode(".png", pixels)[1].tobytes()


def tif(pixels):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels)
    return buffer.getvalue()


def make_archives(kind):
    """Two images by file name; in the first, nuclei of one value lie two pixels apart."""
    grey = [make_image("small_fluorescence", seed, 64, 80)[0][..., 0] for seed in (50, 51)]
    colour = [make_image("purple_tissue", seed, 64, 80)[0][..., ::-1] for seed in (52, 53)]
    marks = np.zeros((64, 80), np.uint8)
    marks[4:20, 4:20], marks[4:20, 20:40], marks[40:60, 4:20] = 1, 2, 1
    if kind == "bbbc039":
        masks = np.dstack(
            [np.zeros_like(marks), np.zeros_like(marks), marks, marks * 0 + 255]
        )  # BGRA: values are red
        names = ["IXMtest_A02_s1_w1", "IXMtest_A02_s2_w1"]
        images = {
            f"images/{name}.tif": tif(one.astype(np.uint16) * 20) for name, one in zip(names, grey, strict=True)
        }
        junk = {"__MACOSX/masks/._IXMtest_A02_s1_w1.png": b"junk"}
        return [make_zip(images), make_zip({f"masks/{name}.png": png(masks) for name in names} | junk)]
    if kind == "tnbc":
        root, files = "TNBC_NucleiSegmentation", {}
        for slide, image in enumerate(colour, 1):
            files[f"{root}/Slide_0{slide}/0{slide}_1.png"] = png(image)
            files[f"{root}/GT_0{slide}/0{slide}_1.png"] = png((marks > 0).astype(np.uint8) * 255)
        return [make_zip(files | {f"{root}/.DS_Store": b"junk"})]
    files = {}
    for organ, image in zip(("human bladder", "mouse liver"), colour, strict=True):
        name = f"{organ.replace(' ', '_')}_01"
        files[f"{organ}/tissue images/{name}.png"] = png(image)
        files[f"{organ}/label masks modify/{name}.tif"] = tif(marks.astype(np.uint16) + (marks > 0) * 6)
        files[f"{organ}/label masks/{name}.tif"] = tif(marks)
    return [make_zip(files)]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with StandIn() as stand_in:
        yield stand_in


@pytest.fixture
def public(server):
    """The real table, with the files on a local server and the digests of those."""
    table = read_public_sets(EXTERNAL_SETS)
    found = {}
    for name, each in table.items():
        contents = dict(zip(FILES[name], make_archives(name), strict=True))
        files = {}
        for file, content in contents.items():
            server.routes[f"GET /{name}/{file}"] = lambda request, content=content: file_answer(
                request, content
            )
            digest = hashlib.md5(content).hexdigest() if each.files[file].md5 else ""
            files[file] = each.files[file].model_copy(
                update={"url": f"{server.url}/{name}/{file}", "md5": digest}
            )
        found[name] = each.model_copy(update={"files": files})
    return found


@pytest.mark.parametrize(
    ("name", "shape", "nuclei"), [("bbbc039", (64, 80), 3), ("tnbc", (64, 80), 2), ("nuinsseg", (32, 40), 2)]
)
def test_a_public_set_in_its_own_layout_becomes_images_and_labels_with_its_licence(
    public, tmp_path, name, shape, nuclei
):
    made = ExternalSet(prepare_set(name, public, tmp_path, {}))
    assert len(made.ids) == 2
    for image_id in made.ids:
        assert made.image(image_id).shape == (*shape, 3)
        assert made.image(image_id).dtype == np.uint8
        assert made.label_map(image_id).max() == nuclei
    assert made.stated.licence == read_public_sets(EXTERNAL_SETS)[name].licence
    assert made.stated.images == 2
    assert {file: note.sha256 for file, note in made.stated.files.items()} == {
        file: hashlib.sha256(content).hexdigest()
        for file, content in zip(FILES[name], make_archives(name), strict=True)
    }


def test_a_set_that_is_there_is_not_downloaded_again(public, server, tmp_path):
    prepare_set("tnbc", public, tmp_path, {})
    server.requests.clear()
    assert prepare_set("tnbc", public, tmp_path, {}) == tmp_path / "tnbc"
    assert server.requests == []


def test_a_file_with_another_digest_is_refused_and_deleted(public, server, tmp_path):
    server.routes["GET /tnbc/TNBC_NucleiSegmentation.zip"] = lambda request: file_answer(
        request, b"another file"
    )
    with pytest.raises(UserError, match=r"md5 [0-9a-f]{32}, expected [0-9a-f]{32}"):
        prepare_set("tnbc", public, tmp_path, {})
    assert not list(tmp_path.rglob("*.zip"))
    assert not (tmp_path / "tnbc").exists()


def test_images_of_the_competition_are_left_out_by_content_at_any_brightness(public, tmp_path):
    image = make_image("small_fluorescence", 51, 64, 80)[0]
    made = prepare_set("bbbc039", public, tmp_path, {"known": thumbnail(image // 3 + 40)})
    provenance = json.loads((made / "provenance.json").read_text())
    assert provenance["refused"] == {"IXMtest_A02_s2_w1": "known"}
    assert [path.stem for path in (made / "images").iterdir()] == ["IXMtest_A02_s1_w1"]


def test_other_images_of_the_same_kind_are_no_duplicates():
    thumbs = {str(seed): thumbnail(make_image("small_fluorescence", seed, 64, 64)[0]) for seed in range(40)}
    half = {name: thumbs[name] for name in list(thumbs)[:20]}
    assert find_duplicates(half, {name: value for name, value in thumbs.items() if name not in half}) == {}
    assert find_duplicates(half, thumbs) == {name: name for name in half}


def test_a_folder_of_ones_own_is_a_set_and_says_what_it_does_not_know(images, tmp_path):
    own = tmp_path / "my_set"
    for kind in ("images", "labels"):
        (own / kind).mkdir(parents=True)
    for number, image_id in enumerate(["image00", ""]):
        image = images.image(image_id) if image_id else make_image("purple_tissue", 99, 64, 64)[0]
        cv2.imwrite(str(own / "images" / f"{number}.png"), image[..., ::-1])
        cv2.imwrite(str(own / "labels" / f"{number}.png"), np.ones(image.shape[:2], np.uint16))
    made = ExternalSet(prepare_set(str(own), {}, tmp_path / "external", competition_thumbnails(images.folder)))
    assert made.ids == ["my_set/1"]
    assert made.stated.refused == {"0": "image00"}
    assert made.stated.licence == "not stated"
    with pytest.raises(UserError, match="no folder or zip, and no public set; public ones are tnbc"):
        prepare_set("nowhere", {"tnbc": None}, tmp_path, {})


def test_a_training_knows_the_licence_of_a_public_set_that_was_put_there_by_hand(images, tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / "tnbc" / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "tnbc" / kind / "a.png"), np.zeros((32, 32), np.uint16))
    known = known_sets(EXTERNAL_SETS)
    pool, _ = add_external(images, Fold(0, [], []), tmp_path, ["tnbc"], known)
    assert [(each.name, each.licence) for each in pool.provenance] == [("tnbc", "CC-BY-4.0")]
