"""Sizes of pixels: both axes, all units, and what is impossible."""

import pytest
import tifffile
from picture_files import GREY, notes, read_one

OME = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels
 ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="80" SizeY="60" SizeZ="1" SizeC="1" SizeT="1" {sizes}><Channel
 ID="Channel:0:0" SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>"""


def read_ome(folder, sizes):
    path = folder / "a.ome.tif"
    tifffile.imwrite(path, GREY, description=OME.format(sizes=sizes).encode(), metadata=None)
    return read_one(path)


@pytest.mark.parametrize(
    ("size", "unit"),
    [("0.325", "µm"), ("325", "nm"), ("0.000325", "mm"), ("3.25E-7", "m"), ("3.25e-5", "cm"), ("3250", "Å"),
     ("0.325", "micron"), ("0.325", "um"), ("0.325", "&#181;m")],
)  # fmt: skip
@pytest.mark.parametrize("unit_first", [True, False])
def test_every_unit_of_ome_in_either_order_of_attributes(tmp_path, size, unit, unit_first):
    units = f'PhysicalSizeXUnit="{unit}" PhysicalSizeYUnit="{unit}"'
    sizes = f'PhysicalSizeX="{size}" PhysicalSizeY="{size}"'
    attributes = f"{units} {sizes}" if unit_first else f"{sizes} {units}"
    assert read_ome(tmp_path, attributes).pixel_size == pytest.approx((0.325, 0.325))


def test_pixels_of_ome_that_are_not_square_keep_both_sizes(tmp_path):
    picture = read_ome(tmp_path, 'PhysicalSizeX="0.2" PhysicalSizeY="0.4"')
    assert picture.pixel_size == (0.2, 0.4)
    assert "not square" in notes(picture)


@pytest.mark.parametrize(
    "sizes", ['PhysicalSizeX="3.25E-7" PhysicalSizeY="3.25E-7"', 'PhysicalSizeX="0" PhysicalSizeY="0"',
              'PhysicalSizeX="NaN" PhysicalSizeY="1"', 'PhysicalSizeX="-1" PhysicalSizeY="1"',
              'PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1" PhysicalSizeYUnit="pixel"',
              'PhysicalSizeX="1" PhysicalSizeXUnit="reference frame"']
)  # fmt: skip
def test_an_impossible_size_is_left_out_and_said(tmp_path, sizes):
    picture = read_ome(tmp_path, sizes)
    assert picture.pixel_size is None
    assert "left out" in notes(picture)


@pytest.mark.parametrize(
    ("per_unit", "unit"),
    [(1 / 0.325, "um"), (1 / 325, "nm"), (1000 / 0.325, "mm"), (10_000 / 0.325, "cm"), (1 / 0.325, "micron"),
     (1 / 0.325, "microns"), (1 / 0.325, "\\u00B5m"), (1e6 / 0.325, "m"), (25400 / 0.325, "inch")],
)  # fmt: skip
def test_every_unit_of_imagej(tmp_path, per_unit, unit):
    tifffile.imwrite(
        tmp_path / "a.tif", GREY, imagej=True, resolution=(per_unit, per_unit), metadata={"unit": unit}
    )
    assert read_one(tmp_path / "a.tif").pixel_size == pytest.approx((0.325, 0.325), rel=1e-3)


def test_pixels_of_imagej_that_are_not_square_keep_both_sizes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, imagej=True, resolution=(5, 2.5), metadata={"unit": "um"})
    assert read_one(tmp_path / "a.tif").pixel_size == (0.2, 0.4)


@pytest.mark.parametrize(("per_unit", "unit"), [(20_000, "CENTIMETER"), (50_800, "INCH")])
def test_a_resolution_of_the_tiff_is_a_size(tmp_path, per_unit, unit):
    tifffile.imwrite(tmp_path / "a.tif", GREY, resolution=(per_unit, per_unit), resolutionunit=unit)
    assert read_one(tmp_path / "a.tif").pixel_size == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("ratio", [(72, 1), (300, 1), (28, 1)])
@pytest.mark.parametrize("unit", ["NONE", "INCH", "CENTIMETER"])
def test_the_resolution_of_a_printer_is_no_size(tmp_path, ratio, unit):
    tifffile.imwrite(tmp_path / "a.tif", GREY, resolution=(ratio, ratio), resolutionunit=unit)
    assert read_one(tmp_path / "a.tif").pixel_size is None


@pytest.mark.parametrize("ratio", [(1, 0), (0, 0), (0, 1), (1, 2**32 - 1)])
@pytest.mark.parametrize("unit", [1, 2, 3])
def test_a_bogus_resolution_refuses_no_picture(tmp_path, ratio, unit):
    tifffile.imwrite(tmp_path / "a.tif", GREY, metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        for code, value in ((282, ratio), (283, ratio), (296, unit)):
            file.pages[0].tags[code].overwrite(value)
    picture = read_one(tmp_path / "a.tif")
    assert picture.pixel_size is None
    assert (picture.pixels == GREY).all()


def test_a_plane_that_is_turned_has_its_sizes_turned(tmp_path):
    options = {"resolution": (20_000, 40_000), "resolutionunit": "CENTIMETER", "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", GREY, extratags=[(274, 3, 1, 6, True)], **options)
    assert read_one(tmp_path / "a.tif").pixel_size == pytest.approx((0.25, 0.5))
