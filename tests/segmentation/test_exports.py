import json

import cv2
import numpy as np
import pytest
import roifile
import tifffile
from skimage.measure import regionprops
from skimage.segmentation import find_boundaries

from nuclei.io.picture import PixelSize
from nuclei.segmentation.exports import find_rims, make_feature, write_label_tiff
from nuclei.segmentation.flat_masks import flatten_masks
from nuclei.segmentation.measurements import Nucleus, list_nuclei, measure
from nuclei.segmentation.outlines import find_polygons, ring_area, trace_masks
from nuclei.segmentation.rois import make_roi
from nuclei.synthetic.images import make_image


def label_map_with_oddities():
    """Drawn nuclei, one with a hole, one whose hole touches the outside at a corner, one of two pieces."""
    label_map = make_image("small_fluorescence", 1, 96, 128)[1].astype(np.int32)
    last = int(label_map.max())
    label_map[:30, :60] = 0
    label_map[2:12, 2:12] = last + 1
    label_map[5:8, 5:8] = 0
    label_map[6, 6] = last + 2
    label_map[2:8, 20:26] = last + 3
    label_map[[2, 3], [25, 24]] = 0
    label_map[15:18, 30:34] = label_map[20:22, 36:40] = last + 4
    return label_map


LABELS = label_map_with_oddities()
NUCLEI = list(list_nuclei(LABELS, LABELS))
FLAT = flatten_masks([nucleus.mask for nucleus in NUCLEI])
OUTLINES = dict(zip([nucleus.label for nucleus in NUCLEI], find_polygons(NUCLEI), strict=True))
ODD = [nucleus.label for nucleus in NUCLEI[-5:]]


def fill(rings, shape=LABELS.shape):
    """Pixels whose middle lies inside an odd number of rings."""
    mask = np.zeros(shape, np.uint8)
    for ring in rings:
        line = (
            np.asarray(ring, float).reshape(-1, 2) - 0.5
        )  # corners of pixels in OpenCV's coordinates of middles
        inside = [
            cv2.pointPolygonTest(line.astype(np.float32), (float(x), float(y)), False) > 0
            for y in range(shape[0])
            for x in range(shape[1])
        ]
        mask ^= np.array(inside, np.uint8).reshape(shape)
    return mask.astype(bool)


@pytest.mark.parametrize("label", ODD)
def test_geojson_reads_back_to_the_same_mask_and_label(label):
    feature = json.loads(json.dumps(make_feature(label, int((label == LABELS).sum()), OUTLINES[label])))
    geometry = feature["geometry"]
    polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    rings = [ring for polygon in polygons for ring in polygon]
    assert all(ring[0] == ring[-1] for ring in rings)
    assert feature["properties"]["measurements"]["Label"] == label
    assert feature["properties"] | {"measurements": None} == {
        "objectType": "detection",
        "name": str(label),
        "measurements": None,
    }
    assert np.array_equal(fill(rings), label == LABELS)


@pytest.mark.parametrize("label", ODD)
def test_a_region_of_imagej_reads_back_to_the_same_mask_and_label(label):
    roi = roifile.ImagejRoi.frombytes(make_roi(label, OUTLINES[label]))
    found = roi.coordinates(multi=True)
    rings = found if isinstance(found, list) else [found]
    assert int(roi.name) == label
    assert np.array_equal(fill(rings), label == LABELS)


@pytest.mark.parametrize("ring", [[(3, 4), (3, 9), (11, 9)], [(40_000, 3), (40_000, 9), (40_010, 9)]])
def test_a_region_has_the_bytes_of_roifile(ring):
    expected = roifile.ImagejRoi.frompoints(np.array(ring), name="00007")
    expected.roitype = roifile.ROI_TYPE.POLYGON
    assert make_roi(7, [[np.array(ring)]]) == expected.tobytes()


def test_the_areas_of_the_rings_are_the_pixels():
    for nucleus, rings in zip(NUCLEI, trace_masks(FLAT), strict=True):
        assert sum(map(ring_area, rings)) == nucleus.mask.sum()


def test_no_ring_passes_a_corner_twice():
    for rings in trace_masks(FLAT):
        for ring in rings:
            assert len(np.unique(ring, axis=0)) == len(ring)


def test_outlines_and_measurements_do_not_depend_on_the_batch():
    for nucleus, row in zip(NUCLEI, measure(NUCLEI, None), strict=True):
        assert measure([nucleus], None) == [row]
        alone = find_polygons([nucleus])[0]
        together = OUTLINES[nucleus.label]
        assert [[ring.tolist() for ring in polygon] for polygon in alone] == [
            [ring.tolist() for ring in polygon] for polygon in together
        ]


@pytest.mark.parametrize(("nuclei", "kind"), [(65_535, np.uint16), (65_536, np.uint32)])
def test_the_label_tiff_keeps_labels_and_pixel_size_and_is_as_small_as_it_can_be(tmp_path, nuclei, kind):
    label_map = np.zeros((600, 50), np.int32)
    label_map[3:5, 7], label_map[599, 49] = 5, nuclei
    write_label_tiff(tmp_path / "a.tif", label_map, nuclei, PixelSize(0.25, 0.25))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.pages[0]
        assert page.dtype == kind
        assert np.array_equal(page.asarray(), label_map)
        numerator, denominator = page.tags["XResolution"].value
        assert (numerator / denominator, page.tags["ResolutionUnit"].value) == (40_000, 3)
        assert not page.is_tiled  # ImageJ's own reader takes strips alone


def test_measurements_of_a_rectangle_are_known():
    label_map = np.zeros((20, 30), np.int32)
    label_map[4:8, 10:20] = 1
    pixels = np.zeros((20, 30), np.uint16)
    pixels[4:8, 10:15] = 1000
    (row,) = measure(list(list_nuclei(label_map, pixels)), PixelSize(0.5, 0.5))
    assert (row["area"], row["centroid_x"], row["centroid_y"]) == (40, 14.5, 5.5)
    assert (row["area_um2"], row["centroid_x_um"]) == (10, 7.25)
    assert (row["intensity_mean"], row["intensity_min"], row["intensity_max"]) == (500, 0, 1000)


@pytest.mark.parametrize("size", [None, PixelSize(0.5, 0.5), PixelSize(0.25, 0.5)])
def test_measurements_are_those_of_scikit_image(size):
    generator = np.random.default_rng(0)
    shapes = [mask for mask in generator.random((20, 12, 9)) < 0.6]
    single = np.zeros((3, 4), bool)
    single[1, 2] = True
    for mask in [*shapes, single, np.ones((1, 7), bool), make_image("purple_tissue", 1, 60, 60)[1] == 1]:
        pixels = generator.integers(0, 255, (*mask.shape, 3), np.uint8)
        (row,) = measure([Nucleus(1, 4, 7, mask, pixels)], size)
        region = regionprops(mask.astype(np.uint8), intensity_image=pixels)[0]
        expected = {
            "area": region.area,
            "centroid_x": region.centroid[1] + 7,
            "centroid_y": region.centroid[0] + 4,
            "major_axis": region.axis_major_length,
            "minor_axis": region.axis_minor_length,
            "perimeter": region.perimeter,
            "eccentricity": region.eccentricity,
            "intensity_mean_green": region.intensity_mean[1],
            "intensity_min_red": region.intensity_min[0],
            "intensity_max_blue": region.intensity_max[2],
        }
        if size:
            scaled = regionprops(mask.astype(np.uint8), spacing=(size.y, size.x))[0]
            expected |= {
                "major_axis_um": scaled.axis_major_length,
                "minor_axis_um": scaled.axis_minor_length,
            }
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_rims_are_those_of_scikit_image():
    labels = make_image("purple_tissue", 1, 80, 90)[1]
    assert np.array_equal(find_rims(labels), find_boundaries(labels, mode="inner"))
