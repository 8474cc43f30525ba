"""CZI files written by Zeiss's own library: planes, channels, colours and pixel size come out as they were written.

Needs `pip install "nuclei[formats]" pylibCZIrw`, and is skipped without.
"""

import numpy as np
import pytest

from nuclei.io.microscopy import read_pictures
from nuclei.io.picture import Reading

pytest.importorskip("czifile")
czi = pytest.importorskip("pylibCZIrw.czi")
PLANE = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50)


def read(path, channel=None):
    return list(read_pictures(path, path.stem, Reading(channel)))


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Two planes of depth with two channels, pixels of 0.325 x 0.5 micrometres."""
    path = tmp_path_factory.mktemp("czi") / "stack.czi"
    with czi.create_czi(str(path)) as file:
        for depth, channel in np.ndindex(2, 2):
            values = PLANE + 1000 * channel + 100 * depth
            file.write(data=values[..., None], plane={"C": channel, "Z": depth, "T": 0})
        file.write_metadata("stack", channel_names={0: "DAPI", 1: "GFP"}, scale_x=0.325e-6, scale_y=0.5e-6)
    return path


def test_a_channel_of_each_plane_is_read_with_both_pixel_sizes(stack):
    pictures = read(stack, channel=2)
    assert [picture.plane for picture in pictures] == ["Z=1", "Z=2"]
    for depth, picture in enumerate(pictures):
        assert np.array_equal(picture.pixels, PLANE + 1000 + 100 * depth)
        assert picture.pixel_size == pytest.approx((0.325, 0.5))


def test_several_channels_are_refused_until_one_is_named(stack):
    with pytest.raises(ValueError, match="has 2 channels; say which shows the nuclei"):
        read(stack)


def test_colours_are_red_green_and_blue(tmp_path):
    path = tmp_path / "colour.czi"
    with czi.create_czi(str(path)) as file:
        blue_first = np.tile(np.array([10, 20, 30], np.uint8), (40, 50, 1))
        file.write(data=blue_first, plane={"C": 0})
    (picture,) = read(path)
    assert picture.pixels.shape == (40, 50, 3)
    assert picture.pixels[0, 0].tolist() == [30, 20, 10]
