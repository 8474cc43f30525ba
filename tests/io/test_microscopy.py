"""Which files of a folder are pictures, their names, and formats without a microscope's metadata."""

import sys
import types

import cv2
import numpy as np
import pytest
import tifffile
from picture_files import GREY, RGB, notes, planes, read, read_one
from PIL import Image

from nuclei.io.decoder import Decoder
from nuclei.io.microscopy import find_pictures, name_results
from nuclei.io.picture import PixelSize, Reading, check_channel, printable


def save(path, array=GREY, **options):
    Image.fromarray(array).save(path, **options)
    return path


def test_other_files_folders_and_broken_links_are_named(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("BM, a note that begins like a bitmap")
    (tmp_path / "more").mkdir()
    (tmp_path / "gone.tif").symlink_to(tmp_path / "nowhere.tif")
    (tmp_path / ".DS_Store").write_bytes(b"0")
    found = find_pictures(tmp_path)
    assert list(found.pictures) == ["a"]
    assert [name for name, _ in found.left_aside] == ["gone.tif", "more", "notes.txt"]


def test_a_folder_without_pictures_and_a_missing_one_are_refused(tmp_path):
    (tmp_path / "image1").mkdir()
    with pytest.raises(ValueError, match=r"no pictures there \(image1: a folder"):
        find_pictures(tmp_path)
    with pytest.raises(ValueError, match="no such folder or file"):
        find_pictures(tmp_path / "none")


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.png", "a.tif", "a.png.png"], ["a.png", "a.png.png", "a.tif"]),
        (["j.tif", "j_page001.tif"], ["j", "j_page001.tif"]),
        (["A.png", "a.tif"], ["A.png", "a.tif"]),
        (["a_page001.tif"], ["a_page001"]),
        (["J.tif", "j_page12.png"], ["J", "j_page12.png"]),
    ],
)
def test_names_of_results_are_distinct_where_case_is_none_too(tmp_path, files, names):
    found = name_results([tmp_path / name for name in sorted(files)])
    assert sorted(found) == sorted(names)
    assert len({name.casefold() for name in found}) == len(files)


def test_names_that_differ_in_case_alone_get_a_number(tmp_path):
    assert list(name_results([tmp_path / "A.png", tmp_path / "a.png"])) == ["A.png", "a.png-2"]


def test_the_content_decides_and_not_the_name(tmp_path):
    tifffile.imwrite(tmp_path / "a.png", planes(3), photometric="minisblack")
    assert len(read(tmp_path / "a.png")) == 3
    save(tmp_path / "b.tif", format="PNG")
    assert np.array_equal(read_one(tmp_path / "b.tif").pixels, GREY)
    save(tmp_path / "c", format="BMP")
    assert list(find_pictures(tmp_path).pictures) == ["a", "b", "c"]


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "webp", "jp2", "tif", "pgm"])
def test_grey_of_every_format_keeps_its_values(tmp_path, ending):
    path = save(tmp_path / f"a.{ending}", **({"lossless": True} if ending == "webp" else {}))
    pixels = read_one(path).pixels
    assert np.array_equal(pixels if pixels.ndim == 2 else pixels[..., 1], GREY)


@pytest.mark.parametrize("ending", ["png", "bmp", "webp", "jp2", "tif", "ppm"])
def test_colours_of_every_format_keep_their_order(tmp_path, ending):
    path = save(tmp_path / f"a.{ending}", RGB, **({"lossless": True} if ending == "webp" else {}))
    assert np.array_equal(read_one(path).pixels, RGB)


def test_sixteen_bits_are_kept(tmp_path):
    deep = GREY.astype(np.uint16) * 200
    for name in ("a.png", "a.jp2"):
        assert cv2.imwrite(str(tmp_path / name), deep, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
        assert np.array_equal(read_one(tmp_path / name).pixels, deep)


def test_sixteen_bits_with_transparency_keep_their_colours(tmp_path):
    deep = np.dstack([RGB[..., ::-1], GREY]).astype(np.uint16) * 200
    assert cv2.imwrite(str(tmp_path / "a.png"), deep)
    assert np.array_equal(read_one(tmp_path / "a.png").pixels, RGB.astype(np.uint16) * 200)


def test_grey_with_transparency_is_grey(tmp_path):
    Image.fromarray(np.dstack([GREY, GREY // 2]), "LA").save(tmp_path / "a.png")
    assert np.array_equal(read_one(tmp_path / "a.png").pixels, GREY)


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_every_frame_of_an_animation_is_a_picture(tmp_path, ending):
    frames = [Image.fromarray(np.full((40, 50), value, np.uint8)) for value in (10, 100, 200)]
    options = {
        "save_all": True,
        "append_images": frames[1:],
        **({"lossless": True} if ending == "webp" else {}),
    }
    frames[0].save(tmp_path / f"a.{ending}", **options)
    pictures = read(tmp_path / f"a.{ending}")
    assert [int(picture.pixels[5, 5].flat[0]) for picture in pictures] == [10, 100, 200]
    assert [picture.name for picture in pictures] == ["a_page001", "a_page002", "a_page003"]


def test_one_bit_of_png_is_black_and_white(tmp_path):
    Image.fromarray(GREY > 100).save(tmp_path / "a.png")
    assert set(np.unique(read_one(tmp_path / "a.png").pixels)) == {0, 255}


def test_a_cmyk_jpeg_becomes_rgb(tmp_path):
    Image.new("RGB", (64, 64), (200, 100, 50)).convert("CMYK").save(tmp_path / "a.jpg")
    picture = read_one(tmp_path / "a.jpg")
    assert np.abs(picture.pixels.astype(int) - (200, 100, 50)).max() < 12
    assert "CMYK" in notes(picture)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.gif", "a.webp", "a.bmp", "a.jp2"])
@pytest.mark.parametrize("kind", ["empty", "text", "cut"])
def test_a_broken_file_of_any_format_fails_by_its_name(tmp_path, name, kind):
    save(tmp_path / name, RGB)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(
        {"empty": b"", "text": b"no picture", "cut": content[: len(content) // 2]}[kind]
    )
    assert list(find_pictures(tmp_path).pictures) == ["a"]
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        read(tmp_path / name)


def test_a_header_that_claims_too_much_is_refused_before_decoding(tmp_path):
    save(tmp_path / "a.jpg")
    content = bytearray((tmp_path / "a.jpg").read_bytes())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = (20_000).to_bytes(2, "big") * 2
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match="claims 20000 x 20000 pixels"):
        read(tmp_path / "a.jpg")


def test_a_file_of_a_reader_that_is_not_installed_names_it(tmp_path):
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE" + bytes(100))
    assert list(find_pictures(tmp_path).pictures) == ["a"]
    with pytest.raises(ValueError, match=r"takes the package czifile.*nuclei\[formats\]"):
        read(tmp_path / "a.czi")


def test_planes_of_a_vendor_format_come_through_its_reader(tmp_path, monkeypatch):
    class File:
        def __init__(self, path):
            self.sizes = {"T": 2, "C": 2, "Y": 60, "X": 80}

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def voxel_size(self):
            return types.SimpleNamespace(x=0.3, y=0.3, z=1.0)

        def asarray(self):
            return planes(2, 2)

    module = types.ModuleType("nd2")
    module.ND2File, module.__spec__ = File, types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "nd2", module)
    (tmp_path / "a.nd2").write_bytes(b"\xda\xce\xbe\x0a" + bytes(100))
    pictures = read(tmp_path / "a.nd2", channel=2)
    assert [int(picture.pixels[0, 0]) for picture in pictures] == [1, 3]
    assert pictures[1].plane == "T=2"
    assert pictures[0].pixel_size == PixelSize(0.3, 0.3)


@pytest.mark.parametrize("channel", [0, -1, "0", "purple", "1.5", True, 2.0])
def test_an_impossible_channel_is_refused(channel):
    with pytest.raises(ValueError, match="whole number, counted from 1"):
        check_channel(channel)


def test_a_decoder_that_dies_names_the_file_and_reads_the_next(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    with Decoder() as decoder:
        process = decoder._start()
        process.kill()
        process.wait()
        decoder._start = lambda: process
        with pytest.raises(ValueError, match=r"a\.png: the decoder died on it by SIGKILL"):
            list(decoder.read(tmp_path / "a.png", "a", Reading()))
        del decoder._start
        (picture,) = decoder.read(tmp_path / "b.png", "b", Reading())
    assert np.array_equal(picture.pixels, GREY)


def test_a_name_that_is_not_utf8_is_read_and_can_be_printed(tmp_path):
    path = tmp_path / "a\udcff.png"
    save(tmp_path / "b.png").rename(path)
    (name,) = find_pictures(tmp_path).pictures
    assert name.encode() == b"a_xff"
    assert np.array_equal(read_one(path).pixels, GREY)


def test_a_name_cannot_steer_the_terminal():
    assert printable("a\nb\x1b[2J\u202ec\u00e9\u202f.png") == "a\\nb\\x1b[2J\\u202ec\u00e9\u202f.png"


def test_large_planes_of_a_stack_come_whole_through_the_scratch_folder(tmp_path, monkeypatch):
    from nuclei.io import decoder as module

    tifffile.imwrite(tmp_path / "a.tif", planes(3), photometric="minisblack")
    small = "import nuclei.io.decoder as d, nuclei.io.picture as p; d.IN_MEMORY = p.IN_MEMORY = 100; serve()"
    monkeypatch.setattr(module, "_START", module._START.replace("serve()", small))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with Decoder() as decoder:
        pictures = decoder.read(tmp_path / "a.tif", "a", Reading(scratch=scratch))
        found = [int(picture.pixels[0, 0]) for picture in pictures]
    assert found == [0, 1, 2]
    assert not list(scratch.iterdir())


def test_each_scene_of_a_czi_is_read_by_the_newer_czifile(tmp_path, monkeypatch):
    class Scene:
        axes = "CYX"

        def __init__(self, side):
            self.shape = (2, side, side)

        def asarray(self, out):
            assert out == "memmap"
            return np.ones(self.shape, np.uint8)

    class File:
        def __init__(self, path):
            self.scenes = {0: Scene(30), 3: Scene(40)}

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def metadata(self):
            return '<M><Distance Id="X"><Value>3e-07</Value></Distance></M>'

    module = types.ModuleType("czifile")
    module.CziFile, module.__spec__ = File, types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "czifile", module)
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE" + bytes(100))
    pictures = read(tmp_path / "a.czi", channel=2)
    assert [(picture.plane, picture.pixels.shape) for picture in pictures] == [
        ("scene 1", (30, 30)),
        ("scene 2", (40, 40)),
    ]
    assert pictures[0].pixel_size == PixelSize(0.3, 0.3)


def test_grey_png_with_transparency_or_a_grey_palette_is_grey(tmp_path):
    import imagecodecs

    wide = GREY.astype(np.uint16) * 200
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.dstack([wide, np.full_like(wide, 65535)])))
    assert np.array_equal(read_one(tmp_path / "a.png").pixels, wide)
    Image.fromarray(GREY).convert("P").save(tmp_path / "b.png")
    assert np.array_equal(read_one(tmp_path / "b.png").pixels, GREY)
