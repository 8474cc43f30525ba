import numpy as np
import pandas as pd
import pytest

from nuclei.data.image_sources import (
    assign_sources,
    background_noise,
    find_source,
    read_corrections,
)
from nuclei.data.splits import assign_sources as split_by_source
from nuclei.errors import UserError


def grey_image(background, noise, size=(64, 96)):
    pixels = np.random.default_rng(0).normal(background, noise, size).clip(0, 255).round()
    return np.repeat(pixels.astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("background", "noise", "look"), [(12, 1, "raised"), (3, 1, "dark"), (3, 0.1, "smooth")]
)
def test_fluorescence_is_told_by_its_background(background, noise, look):
    found = find_source(grey_image(background, noise), "small_fluorescence")
    assert found == f"small_fluorescence_64x96_{look}"


def test_tissue_is_told_by_its_tint():
    lilac = np.full((64, 64, 3), (170, 150, 205), np.uint8)
    assert find_source(lilac, "purple_tissue") == "purple_tissue_64x64_lilac"
    assert find_source(lilac[..., ::-1], "purple_tissue") == "purple_tissue_64x64_plain"


def test_a_rotated_image_has_the_same_source():
    image = grey_image(12, 1)
    assert find_source(image, "x") == find_source(image.transpose(1, 0, 2), "x")


def test_noise_is_measured_in_grey_levels():
    smooth = np.full((200, 200), 100, np.float32)
    noisy = smooth + np.random.default_rng(0).normal(0, 2, smooth.shape)
    assert background_noise(smooth) == 0
    assert background_noise(noisy) == pytest.approx(2, rel=0.1)


def test_tiles_of_one_picture_share_its_source_and_a_correction_comes_first():
    index = pd.DataFrame(
        {"image_id": list("abcd"), "group": [*list("ggg"), "h"], "source": ["x", "x", "y", "y"]}
    )
    assert assign_sources(index).tolist() == ["x", "x", "x", "y"]
    assert assign_sources(index, {"b": "z"}).tolist() == ["x", "z", "x", "y"]


def test_corrections_name_an_image_once(tmp_path):
    (tmp_path / "sources.csv").write_text("image_id,source\na,x\na,y\n")
    with pytest.raises(UserError, match="image a is named twice"):
        read_corrections(tmp_path / "sources.csv")


def make_index(sources):
    count = len(sources)
    names = [f"i{number:02d}" for number in range(count)]
    columns = {"image_id": names, "subset": "train", "group": names, "modality": "m"}
    return pd.DataFrame(columns | {"nuclei": 10, "source": sources})


def test_a_source_is_held_out_as_a_whole():
    splits = split_by_source(make_index(["x"] * 8 + ["y"] * 5 + ["z"] * 3), 3, seed=0)
    assert splits.groupby("group").fold.nunique().max() == 1
    assert splits.fold.nunique() == 3


def test_more_folds_than_sources_are_refused():
    with pytest.raises(UserError, match="3 folds asked for, but the training images have 2 sources"):
        split_by_source(make_index(["x"] * 4 + ["y"] * 4), 3, seed=0)
