"""The contact sheet by source: every source has its row, with what sets its images apart."""

import pandas as pd

from nuclei.reporting.eda.sources import source_table


def make_images():
    rows = []
    for number in range(10):
        row = {
            "image_id": f"image{number}",
            "subset": "train" if number < 8 else "test",
            "height": 64,
            "width": 96,
        }
        row |= {"modality": "grey_tissue", "group": f"slide{number // 2}", "nuclei": number, "fold": number % 2}
        rows.append(row | {"source": "large" if number not in (7, 9) else "small"})
    images = pd.DataFrame(rows).astype({"fold": "Int64", "nuclei": "Int64"})
    images.loc[images.subset == "test", ["fold", "nuclei"]] = pd.NA
    return images


def test_a_source_has_its_counts_sizes_modality_and_folds():
    large, small = source_table(make_images(), {"image0": 3, "image7": 1}, 4)
    assert (large["source"], large["train"], large["test"], large["pictures"]) == ("large", 7, 1, 5)
    assert (large["nuclei"], large["modalities"], large["folds"], large["held_out"]) == (
        21,
        "grey tissue",
        "0, 1",
        "3",
    )
    assert (small["source"], small["train"], small["test"], small["held_out"]) == ("small", 1, 1, "1")
    assert large["sizes"].split() == ["64", large["sizes"].split()[1], "96"]


def test_its_thumbnails_are_of_different_slides_from_few_nuclei_to_many():
    large = source_table(make_images(), {}, 4)[0]
    assert large["images"] == ["image0", "image2", "image6", "image8"]


def test_data_without_sources_have_no_rows():
    assert source_table(make_images().drop(columns="source"), {}) == []
