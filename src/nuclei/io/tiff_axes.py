"""Axes and samples of TIFF series: which count planes, which are channels, and which are colours."""

from typing import Any, NamedTuple

from nuclei.errors import UserError
from nuclei.io import colour
from nuclei.io.picture import Reading, choose_channel, choose_colour, shape_text

UNNAMED = "QI"
"""Letters that tifffile gives to axes whose meaning the file does not say."""
_MOST_LAST = {10: 4, 64: 8}
"""An array without axis names has its channels last if it has at most so many columns and both
other axes are so many times as long."""
_ALPHA = (1, 2)
_RGB, _CMYK = 2, 5
_SEPARATE = 2


class Layout(NamedTuple):
    """The axes of a series: all but rows, columns and samples count planes or channels.

    `axes` and `shape` are as in the array that the file gives.
    """

    axes: str
    shape: tuple[int, ...]

    def size(self, axis: str) -> int:
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def text(self) -> str:
        return shape_text(self.axes.translate(str.maketrans("QI", "??")), self.shape)


def name_axes(axes: str, shape: tuple[int, ...], channel_given: bool) -> tuple[Layout, str]:
    """The axes with channels as C, and a note about those that the file does not name.

    An unnamed axis counts planes; where a channel is asked for and it is the only one, channels. An
    array whose pages are a few pixels wide has its channels last: the writer took its columns for
    rows of pages.

    Raises:
        UserError: no rows and columns; a channel is asked for and several axes have no name.
    """
    shape = tuple(int(size) for size in shape)
    layout = Layout(axes, shape)
    if "Y" not in axes or "X" not in axes:
        raise UserError(f"has no rows and columns, shape {layout.text}")
    unnamed = [place for place, axis in enumerate(axes) if axis in UNNAMED and shape[place] > 1]
    if not unnamed:
        return layout, ""
    last = unnamed[-1]
    if _has_channels_last(layout, last):
        renamed = f"{axes[:last]}YXC{axes[last + 3 :]}"
        return Layout(renamed, shape), f"axes without names, shape {layout.text}: channels taken to be last"
    sizes = " x ".join(str(shape[place]) for place in unnamed)
    if not channel_given or "C" in axes:
        hint = "" if "C" in axes or len(unnamed) > 1 else "; CHANNEL= takes one of them as channels"
        return layout, f"axis of {sizes} without a name: each plane by itself{hint}"
    if len(unnamed) > 1:
        raise UserError(
            f"has {len(unnamed)} axes without a name, shape {layout.text}, and CHANNEL= cannot tell which of them are "
            "channels; leave CHANNEL= out to take each plane by itself, or save it with named axes"
        )
    return Layout(
        f"{axes[:last]}C{axes[last + 1 :]}", shape
    ), f"axis of {sizes} without a name taken for channels"


def _has_channels_last(layout: Layout, last: int) -> bool:
    axes, shape = layout
    if axes[last + 1 :] not in ("YX", "YXS") or layout.size("S") > 1 or "C" in axes:
        return False
    height, width, channels = shape[last : last + 3]
    times = next((times for most, times in _MOST_LAST.items() if channels <= most), None)
    return channels >= 2 and times is not None and min(height, width) >= times * channels


class Samples(NamedTuple):
    """What the samples of a pixel are: `grey` (take `first`), `colours` (all of 3, or `first`) or `channels`."""

    kind: str
    first: int | None
    notes: tuple[str, ...]


def choose_samples(page: Any, layout: Layout, reading: Reading) -> Samples:
    """Which samples of a page are read.

    Raises:
        UserError: samples that are neither colours nor transparency, of which none is chosen.
    """
    count = layout.size("S")
    if colour.is_colour(page) and count >= 3:
        return _choose_colours(page, count, reading)
    alpha = sum(int(sample) in _ALPHA for sample in page.extrasamples)
    if count - alpha <= 1:
        return Samples("grey", 0, ("transparency left out",) if count > 1 else ())
    if layout.size("C") > 1:
        raise UserError(f"has channels in two axes, shape {layout.text}; save it with one axis of channels")
    first, note = choose_channel(count - alpha, reading.channel, layout.text)
    return Samples("channels", first, (note,))


def _choose_colours(page: Any, count: int, reading: Reading) -> Samples:
    """The colours, or the channel besides them that is asked for: any three may be marked as RGB."""
    inks = 4 if int(page.photometric) == _CMYK else 3
    # tifffile writes (4, H, W) so, the last marked as transparency
    separate = int(page.planarconfig) == _SEPARATE
    channels = [
        inks + place
        for place, sample in enumerate(page.extrasamples)
        if int(page.photometric) == _RGB and (separate or int(sample) not in _ALPHA)
    ]
    if isinstance(reading.channel, int) and reading.channel - 1 in channels:
        note = f"channel {reading.channel} of {count}, besides the colours"
        return Samples("channels", reading.channel - 1, (note,))
    first, note = choose_colour(reading.channel)
    extra = f"{count - inks} samples besides the colours left out" if count > inks else ""
    if channels:
        extra += f"; CHANNEL={channels[0] + 1} takes the first of them"
    return Samples("colours", first, (note, extra))
