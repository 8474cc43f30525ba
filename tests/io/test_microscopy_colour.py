"""Colour models of TIFF pages."""

import numpy as np
import pytest
import tifffile
from picture_files import GREY, RGB, notes, read, read_one
from PIL import Image


def test_a_palette_is_looked_up(tmp_path):
    picture = Image.fromarray(RGB).quantize(64)
    picture.save(tmp_path / "a.tif")
    assert np.array_equal(read_one(tmp_path / "a.tif").pixels, np.asarray(picture.convert("RGB")))
    assert "palette: colours looked up" in notes(read_one(tmp_path / "a.tif"))


def test_a_ramp_of_display_colours_leaves_the_intensities(tmp_path):
    ramp = np.zeros((3, 256), np.uint16)
    ramp[1] = np.arange(256) * 257
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="palette", colormap=ramp)
    assert np.array_equal(read_one(tmp_path / "a.tif").pixels, GREY)


def test_cmyk_becomes_the_rgb_it_was_made_from(tmp_path):
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "a.tif")
    picture = read_one(tmp_path / "a.tif")
    assert np.abs(picture.pixels.astype(int) - RGB).max() <= 1
    assert "CMYK converted" in notes(picture)


def test_white_is_zero_is_inverted(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", 255 - GREY, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "b.tif", GREY < 100, photometric="miniswhite")
    assert np.array_equal(read_one(tmp_path / "a.tif").pixels, GREY)
    assert np.array_equal(read_one(tmp_path / "b.tif").pixels, (GREY >= 100) * np.uint8(255))


@pytest.mark.parametrize("model", ["cielab", "icclab", "logl", "cfa"])
def test_colour_models_that_are_not_converted_are_refused_by_name(tmp_path, model):
    array = RGB if "lab" in model else GREY
    tifffile.imwrite(tmp_path / "a.tif", array, photometric=model)
    with pytest.raises(ValueError, match=r"(LAB colours|LogL|colour filter array).*save it as RGB or grey"):
        read(tmp_path / "a.tif")


def test_jpeg_in_a_tiff_has_its_colours(tmp_path):
    smooth = np.dstack([np.linspace(0, 255, 80, dtype=np.uint8)[None].repeat(60, 0)] * 3)
    smooth[..., 1] = 255 - smooth[..., 1]
    tifffile.imwrite(tmp_path / "a.tif", smooth, photometric="rgb", compression="jpeg", tile=(16, 16))
    assert np.abs(read_one(tmp_path / "a.tif").pixels.astype(int) - smooth).mean() < 8


def test_ycbcr_without_compression_is_converted(tmp_path):
    ycbcr = np.asarray(Image.fromarray(RGB).convert("YCbCr"))
    options = {"metadata": None, "extratags": [(530, 3, 2, (1, 1), True)]}
    tifffile.imwrite(tmp_path / "a.tif", ycbcr, photometric="ycbcr", **options)
    assert np.abs(read_one(tmp_path / "a.tif").pixels.astype(int) - RGB).max() <= 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_values_stay_where_imagej_only_shows_them_inverted(tmp_path, dtype):
    pixels = GREY.astype(dtype)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric="miniswhite", description="ImageJ=1.53t\n", metadata=None
    )
    picture = read_one(tmp_path / "a.tif")
    assert np.array_equal(picture.pixels, pixels)
    assert "shown inverted by ImageJ" in notes(picture)
