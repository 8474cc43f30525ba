"""Arrays that are given as pictures: what is taken, and what is refused instead of being read wrongly."""

import numpy as np
import pytest
from PIL import Image

from nuclei.segmentation.array_input import read_array

GREY = (np.arange(60 * 80).reshape(60, 80) % 251).astype(np.uint8)


@pytest.mark.parametrize("image", [GREY.tolist(), Image.fromarray(GREY), GREY.astype(">u2")])
def test_what_numpy_takes_for_an_array_is_read(image):
    pixels = read_array(image, None).pixels
    assert np.array_equal(pixels, GREY)
    assert pixels.dtype.isnative


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_that_come_first_are_refused_when_one_is_asked_for(channels):
    with pytest.raises(ValueError, match=r"channels first; expected them last, as np.moveaxis"):
        read_array(np.stack([GREY] * channels), 1)


def test_a_channel_of_the_last_axis_is_taken():
    stack = np.dstack([GREY] * 4 + [GREY[::-1]])
    assert np.array_equal(read_array(stack, 5).pixels, GREY[::-1])


@pytest.mark.parametrize("image", [None, 3.0, GREY.astype(object), np.ma.masked_greater(GREY, 9)])
def test_what_is_no_array_of_numbers_is_refused(image):
    with pytest.raises(ValueError, match=r"no array|masked array"):
        read_array(image, None)
