"""Masks are recognised: two-valued, soft, a label map, or a mask of many nuclei."""

import cv2
import numpy as np
import pytest

from nuclei.data.masks import read_annotation
from nuclei.data.prepare import build_index, describe_images, find_images, prepare_image
from nuclei.errors import UserError
from nuclei.synthetic.images import make_image

IMAGE, LABEL_MAP = make_image("small_fluorescence", 3, 128, 160)
NUCLEI = int(LABEL_MAP.max())
MASKS = [np.uint8(255) * (label == LABEL_MAP) for label in range(1, NUCLEI + 1)]


def read(folder, masks):
    folder.mkdir(exist_ok=True)
    for number, mask in enumerate(masks):
        assert cv2.imwrite(str(folder / f"m{number:03d}.png"), mask)
    return read_annotation(folder, LABEL_MAP.shape)


def blur(mask):
    return cv2.GaussianBlur(mask, (0, 0), 2)


def compress(mask):
    return cv2.imdecode(cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE)


def shrink_and_enlarge(mask):
    small = cv2.resize(mask, (80, 64), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (160, 128), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("soften", [blur, compress, shrink_and_enlarge])
def test_soft_masks_keep_the_area_of_their_nuclei(tmp_path, soften):
    annotation = read(tmp_path / "masks", map(soften, MASKS))
    assert len(annotation.soft) >= 0.9 * NUCLEI
    areas, expected = (np.bincount(labels.ravel())[1:] for labels in (annotation.label_map, LABEL_MAP))
    assert np.median(areas / expected) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_label_map_instead_of_masks_is_used_as_it_is(tmp_path, dtype):
    annotation = read(tmp_path / "masks", [LABEL_MAP.astype(dtype)])
    assert annotation.is_label_map
    assert (annotation.label_map == LABEL_MAP).all()


def test_a_label_map_may_have_gaps_in_its_labels(tmp_path):
    annotation = read(tmp_path / "masks", [(LABEL_MAP * 500).astype(np.uint16)])
    assert (annotation.label_map == LABEL_MAP).all()


def test_a_label_map_in_colours_is_used_as_it_is(tmp_path):
    colours = np.random.default_rng(0).integers(1, 256, (NUCLEI + 1, 3), np.uint8)
    colours[:, 2] = 200  # red alone does not tell them apart
    colours[0] = 0
    annotation = read(tmp_path / "masks", [colours[LABEL_MAP]])
    assert annotation.label_map.max() == NUCLEI
    pairs = np.unique(np.stack([annotation.label_map.ravel(), LABEL_MAP.ravel()]), axis=1)
    assert pairs.shape[1] == NUCLEI + 1


def test_a_label_map_among_masks_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=rf"m001\.png: one of 2 masks has {NUCLEI} values beside 0.*only the label map"
    ):
        read(tmp_path / "masks", [MASKS[0], LABEL_MAP.astype(np.uint8)])


def test_one_mask_of_all_nuclei_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"m000\.png: the only mask .* separate pieces.*one mask per nucleus"):
        read(tmp_path / "masks", [np.uint8(255) * (LABEL_MAP > 0)])


@pytest.mark.parametrize("value", [1, 255])
def test_an_image_may_have_one_nucleus_of_two_pieces(tmp_path, value):
    mask = (np.isin(LABEL_MAP, (1, 2)) * value).astype(np.uint8)
    assert (read(tmp_path / "masks", [mask]).label_map == (mask > 0)).all()


def test_the_report_names_soft_masks_and_label_maps(tmp_path):
    for image_id, masks in {"soft": map(blur, MASKS), "labels": [LABEL_MAP.astype(np.uint8)]}.items():
        folder = tmp_path / "stage1_train" / image_id
        (folder / "images").mkdir(parents=True)
        cv2.imwrite(str(folder / "images" / f"{image_id}.png"), np.roll(IMAGE, len(image_id), 1))
        read(folder / "masks", masks)
    ids = find_images(tmp_path, "train")
    prepared = [prepare_image(tmp_path, tmp_path / "out", "train", image_id) for image_id in ids]
    report = "\n".join(describe_images(prepared, build_index(prepared)))
    assert "1 images are annotated by a label map, such as labels" in report
    assert "masks are not two-valued, such as soft/masks/m000.png; pixels above half" in report


@pytest.mark.parametrize("image_id", ["test 1,00", "=1+1", 'a"><img src=x>', "-1", "ä"])
def test_an_unsafe_image_id_is_refused_when_the_data_are_prepared(tmp_path, image_id):
    for name in ("good", image_id):
        (tmp_path / "stage1_train" / name).mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"stage1_train: 1 of 2 image ids: .* is not a valid name.*; rename the images"
    ):
        find_images(tmp_path, "train")
