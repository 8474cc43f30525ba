"""Planes of TIFF files: series, axes, pyramids, file sets."""

import numpy as np
import pytest
import tifffile
from picture_files import GREY, RGB, notes, planes, read, read_one


def corners(pictures):
    return [int(picture.pixels[0, 0]) for picture in pictures]


def test_all_positions_of_an_ome_file_are_read(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        for number in range(3):
            file.write(planes(3)[number], metadata={"axes": "YX", "Name": f"Position{number}"})
    pictures = read(tmp_path / "a.ome.tif")
    assert corners(pictures) == [0, 1, 2]
    assert [picture.plane for picture in pictures] == ["Position0", "Position1", "Position2"]
    assert len({picture.name for picture in pictures}) == 3


def test_pages_after_a_thumbnail_are_read(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(GREY[::4, ::4], metadata=None)
        for plane in planes(4):
            file.write(plane, metadata=None)
    assert [picture.pixels.shape for picture in read(tmp_path / "a.tif")] == [(15, 20), *[(60, 80)] * 4]


def test_pages_of_half_the_size_with_other_content_are_pictures(tmp_path):
    random = np.random.default_rng(1)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for side in (64, 32, 16):
            file.write(random.integers(0, 255, (side, side), np.uint8), metadata=None)
    assert [len(picture.pixels) for picture in read(tmp_path / "a.tif")] == [64, 32, 16]


def smooth(side):
    rows, columns = np.mgrid[:side, :side] / side
    return (127 * (1 + np.sin(7 * rows) * np.cos(9 * columns))).astype(np.uint8)


@pytest.mark.parametrize("marked", [True, False])
def test_reduced_copies_in_pages_are_left_aside(tmp_path, marked):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for side in (128, 64, 32):
            file.write(smooth(side), metadata=None, subfiletype=int(marked and side < 128))
    picture = read_one(tmp_path / "a.tif")
    assert picture.pixels.shape == (128, 128)
    assert "2 pyramid levels left aside" in notes(picture)


@pytest.mark.parametrize("ome", [True, False])
def test_a_pyramid_in_subifds_is_read_at_full_size(tmp_path, ome):
    name = "a.ome.tif" if ome else "a.tif"
    with tifffile.TiffWriter(tmp_path / name, ome=ome) as file:
        file.write(smooth(128), subifds=2, tile=(32, 32))
        for side in (64, 32):
            file.write(smooth(side), subfiletype=1, tile=(32, 32))
    assert np.array_equal(read_one(tmp_path / name).pixels, smooth(128))


OME_SET = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{own}">
<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="80" SizeY="60" SizeZ="1"
 SizeC="{channels}" SizeT="{times}">{channel_elements}{data}</Pixels></Image></OME>"""
OME_DATA = """<TiffData FirstT="{t}" FirstC="{c}" IFD="0" PlaneCount="1">
<UUID FileName="{file}">urn:uuid:{uuid}</UUID></TiffData>"""


def write_ome_set(folder, channels=1, times=1):
    places = [(c, t) for t in range(times) for c in range(channels)]
    names = [f"exp_{number}.ome.tif" for number in range(len(places))]
    data = "".join(
        OME_DATA.format(c=c, t=t, file=name, uuid=number)
        for number, ((c, t), name) in enumerate(zip(places, names, strict=True))
    )
    elements = '<Channel SamplesPerPixel="1"/>' * channels
    for number, name in enumerate(names):
        xml = OME_SET.format(own=number, channels=channels, times=times, channel_elements=elements, data=data)
        tifffile.imwrite(folder / name, planes(len(names))[number], description=xml, metadata=None)
    return [folder / name for name in names]


def test_each_file_of_an_ome_set_has_its_own_planes(tmp_path):
    paths = write_ome_set(tmp_path, times=3)
    assert [corners(read(path)) for path in paths] == [[0], [1], [2]]
    assert read_one(paths[1]).plane == "T=2"


def test_a_lone_file_of_an_ome_set_invents_no_planes_and_names_the_missing_files(tmp_path):
    paths = write_ome_set(tmp_path, times=3)
    paths[0].unlink()
    paths[2].unlink()
    assert "exp_0.ome.tif, exp_2.ome.tif are missing" in notes(read_one(paths[1]))


def test_a_file_of_another_channel_of_an_ome_set_says_so(tmp_path):
    paths = write_ome_set(tmp_path, channels=2)
    assert corners(read(paths[1], channel=2)) == [1]
    with pytest.raises(ValueError, match="holds no plane of channel 2"):
        read(paths[0], channel=2)
    with pytest.raises(ValueError, match="has 2 channels; say which"):
        read(paths[0])


def test_planes_that_the_metadata_name_but_the_file_lacks_are_no_pictures(tmp_path):
    path = tmp_path / "a.ome.tif"
    xml = OME_SET.format(own=0, channels=1, times=3, channel_elements="<Channel/>", data="<TiffData/>")
    tifffile.imwrite(path, GREY, description=xml, metadata=None)
    picture = read_one(path)
    assert np.array_equal(picture.pixels, GREY)
    assert "2 planes that the metadata name are not in the file" in notes(picture)


def test_an_array_with_its_channels_last_asks_for_a_channel(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB[..., :2])  # tifffile takes the rows for pages of 80 x 2 pixels
    with pytest.raises(ValueError, match=r"has 2 channels.*CHANNEL=1 to CHANNEL=2.*60 x 80 x 2"):
        read(tmp_path / "a.tif")
    assert np.array_equal(read_one(tmp_path / "a.tif", channel=2).pixels, RGB[..., 1])


def test_two_samples_without_transparency_ask_for_a_channel(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB[..., :2], photometric="minisblack", planarconfig="contig")
    with pytest.raises(ValueError, match="has 2 channels; say which"):
        read(tmp_path / "a.tif")
    assert np.array_equal(read_one(tmp_path / "a.tif", channel=2).pixels, RGB[..., 1])


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_of_two_samples_with_transparency_the_grey_one_is_read(tmp_path, kind):
    options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": [kind]}
    tifffile.imwrite(tmp_path / "a.tif", RGB[..., :2], **options)
    assert np.array_equal(read_one(tmp_path / "a.tif").pixels, GREY)


@pytest.mark.parametrize("channel", [None, 2])
def test_a_time_lapse_is_no_stack_of_channels(tmp_path, channel):
    tifffile.imwrite(tmp_path / "a.tif", planes(4), imagej=True, metadata={"axes": "TYX"})
    pictures = read(tmp_path / "a.tif", channel)
    assert corners(pictures) == [0, 1, 2, 3]
    assert [picture.plane for picture in pictures] == ["T=1", "T=2", "T=3", "T=4"]


def test_every_plane_of_a_hyperstack_is_read_in_the_chosen_channel(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", planes(2, 3, 2), imagej=True, metadata={"axes": "TZCYX"})
    pictures = read(tmp_path / "a.tif", channel=2)
    assert corners(pictures) == [1, 3, 5, 7, 9, 11]
    assert pictures[-1].plane == "T=2, Z=3"
    assert "channel 2 of 2" in notes(pictures[0])


def test_axes_without_names_are_planes_each_by_itself(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", planes(2, 2), photometric="minisblack")
    pictures = read(tmp_path / "a.tif")
    assert corners(pictures) == [0, 1, 2, 3]
    assert "without a name" in notes(pictures[0])
    with pytest.raises(ValueError, match=r"2 x 2 x 60 x 80, and CHANNEL= cannot tell"):
        read(tmp_path / "a.tif", channel=1)


def test_one_axis_without_a_name_is_channels_where_one_is_asked_for(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", planes(3), photometric="minisblack")
    assert corners(read(tmp_path / "a.tif")) == [0, 1, 2]
    picture = read_one(tmp_path / "a.tif", channel=3)
    assert picture.pixels[0, 0] == 2
    assert "taken for channels" in notes(picture)


def test_names_of_channels_are_in_the_question_and_in_the_answer(tmp_path):
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", planes(2), metadata=metadata)
    with pytest.raises(ValueError, match="DAPI, GFP"):
        read(tmp_path / "a.ome.tif")
    assert "channel 1 of 2 (DAPI)" in notes(read_one(tmp_path / "a.ome.tif", channel=1))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colours_are_read_in_either_planar_configuration(tmp_path, planar):
    array = RGB if planar == "contig" else RGB.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", planarconfig=planar)
    assert np.array_equal(read_one(tmp_path / "a.tif").pixels, RGB)


def test_a_number_of_a_channel_leaves_colour_pictures_whole_and_a_colour_takes_its_own(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb")
    picture = read_one(tmp_path / "a.tif", channel=2)
    assert np.array_equal(picture.pixels, RGB)
    assert "CHANNEL=2 has no effect" in notes(picture)
    assert np.array_equal(read_one(tmp_path / "a.tif", channel="green").pixels, RGB[..., 1])


def test_pages_in_colour_are_no_channels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([RGB, RGB[::-1]]), photometric="rgb")
    assert len(read(tmp_path / "a.tif", channel=1)) == 2


def test_samples_besides_the_colours_are_left_out_and_said(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([RGB, GREY]), photometric="rgb", extrasamples=["unassalpha"])
    picture = read_one(tmp_path / "a.tif")
    assert np.array_equal(picture.pixels, RGB)
    assert "1 samples besides the colours left out" in notes(picture)


@pytest.mark.parametrize(
    "dtype", ["int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"]
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_numbers_of_any_type_and_byte_order_keep_their_values(tmp_path, dtype, order):
    values = (GREY // 2).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=order)
    pixels = read_one(tmp_path / "a.tif").pixels
    assert pixels.dtype == np.dtype(dtype)
    assert np.array_equal(pixels, values)


def test_one_bit_is_black_and_white(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY > 100, photometric="minisblack")
    assert np.array_equal(read_one(tmp_path / "a.tif").pixels, (GREY > 100) * np.uint8(255))


def test_twelve_bits_keep_their_values(tmp_path):
    values = GREY[:, :].astype(np.uint16) * 16
    from imagecodecs import packints_encode

    data = b"".join(packints_encode(row, 12) for row in values)
    tifffile.imwrite(tmp_path / "a.tif", iter([data]), shape=values.shape, dtype=np.uint16, bitspersample=12)
    assert np.array_equal(read_one(tmp_path / "a.tif").pixels, values)


@pytest.mark.parametrize("options", [{"tile": (32, 32)}, {"rowsperstrip": 7}, {"bigtiff": True}])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_tiles_strips_and_compressions_are_read(tmp_path, options, compression):
    tifffile.imwrite(tmp_path / "a.tif", GREY, compression=compression, **options)
    assert np.array_equal(read_one(tmp_path / "a.tif").pixels, GREY)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_plane_lies_as_its_orientation_says(tmp_path, orientation):
    from PIL import Image, ImageOps

    picture = Image.fromarray(GREY)
    picture.getexif()[0x0112] = orientation
    exif = picture.getexif()
    picture.save(tmp_path / "a.jpg", exif=exif, quality=100)
    tifffile.imwrite(tmp_path / "a.tif", GREY, metadata=None, extratags=[(274, 3, 1, orientation, True)])
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg")))
    turned = read_one(tmp_path / "a.tif")
    assert np.abs(turned.pixels.astype(int) - expected).max() <= 4
    assert ("orientation" in notes(turned)) == (orientation != 1)
    assert np.array_equal(read_one(tmp_path / "a.jpg").pixels, expected)


def test_a_file_that_is_cut_off_fails_and_says_so(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[:-500])
    with pytest.raises(ValueError, match=r"ends after [\d,]+ of [\d,]+ bytes"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["imagej", "shaped"])
def test_a_stack_in_one_piece_that_is_cut_off_fails(tmp_path, kind):
    tifffile.imwrite(tmp_path / "a.tif", planes(4), photometric="minisblack", imagej=kind == "imagej")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: 2 * len(content) // 3])
    with pytest.raises(ValueError, match=r"a\.tif: "):
        read(tmp_path / "a.tif")


def test_a_plane_beyond_the_budget_is_refused_by_its_header(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, metadata=None, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[tag].overwrite(20_000)
    with pytest.raises(ValueError, match=r"claims 20000 x 20000 pixels.*MAX_PIXELS=400000000"):
        read(tmp_path / "a.tif")


def test_a_document_type_in_the_metadata_is_not_expanded(tmp_path):
    bomb = '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    xml = bomb + OME_SET.partition("?>")[2].format(
        own=0, channels=1, times=1, channel_elements="&b;", data="<TiffData/>"
    )
    tifffile.imwrite(tmp_path / "a.ome.tif", GREY, description=xml, metadata=None)
    picture = read_one(tmp_path / "a.ome.tif")
    assert np.array_equal(picture.pixels, GREY)
    assert "cannot be read safely" in notes(picture)


def test_a_border_without_numbers_is_background_and_said(tmp_path):
    values = GREY.astype(np.float32)
    values[:10], values[-5:] = np.nan, np.inf
    tifffile.imwrite(tmp_path / "a.tif", values)
    picture = read_one(tmp_path / "a.tif")
    assert np.isfinite(picture.pixels).all()
    assert np.array_equal(picture.outside, ~np.isfinite(values))
    assert "1200 of 4800 pixels are not finite" in notes(picture)


def test_a_plane_without_any_number_fails(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((20, 20), np.nan, np.float32))
    with pytest.raises(ValueError, match="has no finite value"):
        read(tmp_path / "a.tif")


def test_pages_that_the_ome_xml_does_not_name_are_said(tmp_path):
    xml = OME_SET.format(own=0, channels=1, times=1, channel_elements="<Channel/>", data="<TiffData/>")
    tifffile.imwrite(
        tmp_path / "a.ome.tif", planes(3), photometric="minisblack", description=xml, metadata=None
    )
    picture = read_one(tmp_path / "a.ome.tif")
    assert "2 pages that the OME-XML does not name left aside" in notes(picture)


def test_pages_beyond_imagej_s_metadata_are_read(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for number, plane in enumerate(planes(3)):
            description = "" if number else "ImageJ=1.53t\nimages=2\nslices=2\n"
            file.write(plane, description=description, metadata=None)
    pictures = read(tmp_path / "a.tif")
    assert corners(pictures) == [0, 1, 2]
    assert "ImageJ's metadata name fewer images than there are" in notes(pictures[0])


def test_an_impossible_order_of_axes_in_ome_xml_is_no_error(tmp_path):
    xml = OME_SET.format(own=0, channels=1, times=1, channel_elements="<Channel/>", data="<TiffData/>")
    tifffile.imwrite(tmp_path / "a.tif", GREY, description=xml.replace("XYCZT", "XYZ"), metadata=None)
    assert np.array_equal(read_one(tmp_path / "a.tif").pixels, GREY)


def test_an_array_of_many_channels_written_last_asks_for_one(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((160, 170, 20), np.uint16))
    with pytest.raises(ValueError, match="has 20 channels"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("options", [{"extrasamples": ["unspecified"]}, {"planarconfig": "separate"}])
def test_a_fourth_channel_beside_three_marked_as_colours_can_be_asked_for(tmp_path, options):
    stack = planes(4)
    stack = stack if "planarconfig" in options else np.moveaxis(stack, 0, -1)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="rgb", metadata=None, **options)
    assert "CHANNEL=4 takes the first of them" in notes(read_one(tmp_path / "a.tif"))
    assert corners([read_one(tmp_path / "a.tif", channel=4)]) == [3]
    assert read_one(tmp_path / "a.tif", channel=2).pixels.shape == (60, 80, 3)


def test_transparency_is_no_channel(tmp_path):
    image = np.dstack([RGB, GREY])
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(read_one(tmp_path / "a.tif", channel=4).pixels, RGB)
