"""Corrected label maps: of which pictures they are, in all forms that programs save them in."""

import json

import cv2
import numpy as np
import pytest
import tifffile

from nuclei.segmentation.corrections import read_corrected, read_corrections
from nuclei.segmentation.exports import make_feature
from nuclei.segmentation.measurements import list_nuclei
from nuclei.segmentation.outlines import find_polygons
from nuclei.segmentation.results import Record, Source, SummaryRow, write_record

LABELS = np.zeros((20, 30), np.int32)
LABELS[2:9, 3:12] = 1
LABELS[4:6, 6:8] = 0
LABELS[10:18, 20:29] = 2
LABELS[18, 20] = 2


def write_geojson(path):
    nuclei = list(list_nuclei(LABELS, LABELS))
    outlines = zip(nuclei, find_polygons(nuclei), strict=True)
    features = [make_feature(one.label, int(one.mask.sum()), polygons) for one, polygons in outlines]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


@pytest.mark.parametrize("kind", ["uint8.png", "uint16.png", "uint16.tif", "uint32.tif", "float32.tif"])
def test_a_label_map_of_any_depth_is_read_and_numbered_from_1(tmp_path, kind):
    dtype, suffix = kind.split(".")
    path = tmp_path / f"cells.{suffix}"
    values = (LABELS * 7).astype(dtype)
    cv2.imwrite(str(path), values) if suffix == "png" else tifffile.imwrite(path, values)
    assert np.array_equal(read_corrected(path, (20, 30)), LABELS)


def test_geojson_of_the_results_gives_the_label_map_back_with_its_holes(tmp_path):
    write_geojson(tmp_path / "cells.geojson")
    assert np.array_equal(read_corrected(tmp_path / "cells.geojson", (20, 30)), LABELS)


@pytest.mark.parametrize(
    "geometry",
    [
        '{"type": "Polygon", "coordinates": []}',
        '{"type": "Polygon", "coordinates": [[[1, 2], [3]]]}',
        '{"type": "Polygon", "coordinates": [[["a", "b"]]]}',
        '{"type": "Polygon", "coordinates": [[[1, 2], [1e300, NaN], [3, 4]]]}',
        '{"type": "MultiPolygon", "coordinates": 5}',
        "null",
        "[" * 100_000,
    ],
)
def test_a_damaged_polygon_is_refused_in_one_line(tmp_path, geometry):
    (tmp_path / "cells.geojson").write_text(f'[{{"geometry": {geometry}}}]')
    with pytest.raises(ValueError, match=r"cells\.geojson: no GeoJSON with a polygon for each nucleus"):
        read_corrected(tmp_path / "cells.geojson", (20, 30))


def test_a_polygon_that_leaves_the_picture_is_cut_off(tmp_path):
    ring = [[-5, -5], [4.2, -5], [4.2, 3], [-5, 3], [-5, -5]]
    away = [[40, 40], [50, 40], [50, 50], [40, 40]]
    features = [{"geometry": {"type": "Polygon", "coordinates": [each]}} for each in (ring, away)]
    (tmp_path / "cells.geojson").write_text(json.dumps(features))
    expected = np.zeros((20, 30), np.int32)
    expected[:3, :4] = 1
    assert np.array_equal(read_corrected(tmp_path / "cells.geojson", (20, 30)), expected)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((20, 31), np.uint16), r"the label map is 31 x 20 pixels, its picture 30 x 20"),
        (np.full((20, 30, 3), 9, np.uint8), "no label map; expected one grey plane"),
        (np.full((20, 30), 0.5, np.float32), "no label map; expected one grey plane"),
        (
            np.tile(np.repeat([[255], [0]], 3, axis=0), (4, 30))[:20].astype(np.uint8),
            "all 4 objects have the number 255",
        ),
    ],
)
def test_what_is_no_label_map_is_refused_by_name(tmp_path, values, said):
    tifffile.imwrite(tmp_path / "cells.tif", values)
    with pytest.raises(ValueError, match=f"cells.tif: .*{said}"):
        read_corrected(tmp_path / "cells.tif", (20, 30))


@pytest.fixture
def folder(tmp_path):
    """Two pictures and a stack of two planes, with label maps of all but one picture."""
    for kind in ("images", "labels"):
        (tmp_path / "mine" / kind).mkdir(parents=True)
    images, labels = tmp_path / "mine/images", tmp_path / "mine/labels"
    for name in ("a", "b"):
        cv2.imwrite(str(images / f"{name}.png"), (LABELS * 50).astype(np.uint8))
    tifffile.imwrite(
        images / "stack.tif", np.stack([LABELS, LABELS]).astype(np.uint16), photometric="minisblack"
    )
    for name in ("a", "stack_page002"):
        tifffile.imwrite(labels / f"{name}.tif", LABELS.astype(np.uint16))
    return tmp_path / "mine"


def test_label_maps_find_their_pictures_and_planes_and_other_pictures_are_left_aside(folder, caplog):
    caplog.set_level("INFO")
    pictures = read_corrections(folder)
    assert pictures.ids == ["mine/a", "mine/stack_page002"]
    assert np.array_equal(pictures.label_map("mine/a"), LABELS)
    assert pictures.pictures["mine/stack_page002"].file == "stack.tif"
    assert "2 pictures have no label map" in caplog.text


def test_a_label_map_without_a_picture_is_refused(folder):
    tifffile.imwrite(folder / "labels/c.tif", LABELS.astype(np.uint16))
    with pytest.raises(ValueError, match="1 label maps have no picture, such as c"):
        read_corrections(folder)


def test_corrections_in_a_folder_of_results_find_the_pictures_that_were_segmented(folder, tmp_path):
    out = tmp_path / "out"
    for name in ("a", "b"):
        source = Source(file=f"{name}.png", sha256="", weights="", channel=None, pixel_size=None, scale=1.0)
        row = SummaryRow(image=name, file=f"{name}.png")
        record = Record(folder=str(folder / "images"), source=source, rows=[row], made=[])
        write_record(out, name, record, None)
    with pytest.raises(ValueError, match="results without corrected/; put the label maps there"):
        read_corrections(out)
    (out / "corrected").mkdir()
    write_geojson(out / "corrected/b.geojson")
    pictures = read_corrections(out)
    assert pictures.ids == ["out/b"]
    assert np.array_equal(pictures.label_map("out/b"), LABELS)
