"""Run-length encoding (RLE) of masks in Kaggle's format: `start length`, from 1, by columns.

Pixel 1 is the top left corner, pixel 2 lies below it, pixel H + 1 begins the second column. A run
may continue from the bottom of one column to the top of the next. An image is encoded in one pass
for all nuclei.

Source: https://www.kaggle.com/c/data-science-bowl-2018/overview/evaluation
"""

from collections.abc import Iterator, Sequence

import numpy as np

from nuclei.arrays import Int64Array, LabelMap, Labels, Mask
from nuclei.errors import UserError

LARGEST_IMAGE = 2**31
"""Most pixels of an image: image number times this fits 64 bits."""

# Sums of a start and a length below this stay exact in 64 bits.
_LARGEST_NUMBER = 10**18


def encode(mask: Mask) -> str:
    """Runs of one mask (H, W) bool; an empty mask gives the empty string.

    Raises:
        UserError: the array is not two-dimensional or not boolean.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise UserError(
            f"expected a boolean mask (H, W), got {mask.dtype} of shape {mask.shape}; pass `mask > 0`"
        )
    return "".join(encode_label_map(mask.astype(np.uint8)))


def encode_label_map(label_map: Labels) -> list[str]:
    """Encodes each nucleus of a label map (H, W) as runs, labels ascending; may be an empty list.

    Labels need not be consecutive, and a nucleus may have several pieces.

    Raises:
        UserError: the array is not two-dimensional, not of integers, or holds a negative label.
    """
    if label_map.ndim != 2 or not np.issubdtype(label_map.dtype, np.integer):
        raise UserError(
            f"expected a label map (H, W) of integers, got {label_map.dtype} of shape {label_map.shape}"
        )
    if not label_map.size:
        return []
    places, begun, ended = _changes(label_map)
    if begun.min() < 0:
        raise UserError(f"expected 0 for background and labels from 1, got the label {begun.min()}")
    if int(begun.max()) >= _LARGEST_NUMBER // label_map.size:  # the keys below would not fit 64 bits
        # A 0 of the labels' own type: NumPy would turn uint64 beside int64 into float64.
        names = np.unique(np.append(begun, begun.dtype.type(0)))
        begun, ended = np.searchsorted(names, begun), np.searchsorted(names, ended)
    # Sorted by label and position, the k-th start and the k-th end belong to the same run.
    above = label_map.size + 1
    begins = np.sort((begun.astype(np.int64) * above + places)[begun > 0])
    places[0] = label_map.size  # the first change stands for the end of the last pixel's run
    ends = np.sort((ended.astype(np.int64) * above + places)[ended > 0])
    labels, starts = np.divmod(begins, above)
    return _write(starts + 1, ends - begins, np.flatnonzero(np.diff(labels, prepend=0)))


def _changes(label_map: Labels) -> tuple[Int64Array, Labels, Labels]:
    """Positions in column order at which the label changes, and the labels after and before.

    The first pixel is always one of them; the pixel before it is the last. Neighbours are compared
    in memory order and only the few changes are sorted by column: transposing the whole image takes
    several times longer.
    """
    height, width = label_map.shape
    differs = np.ones(label_map.shape, bool)
    np.not_equal(label_map[1:], label_map[:-1], out=differs[1:])
    np.not_equal(label_map[0, 1:], label_map[-1, :-1], out=differs[0, 1:])
    rows, columns = np.divmod(np.flatnonzero(differs), width)
    return (
        columns * height + rows,
        label_map[rows, columns],
        label_map[rows - 1, columns - (rows == 0)],
    )


def _write(starts: Int64Array, lengths: Int64Array, first_runs: Int64Array) -> list[str]:
    """`start length` pairs in decimal, a string from each of `first_runs` on to the next.

    The digits of all numbers are computed at once and leading zeros dropped: a third of the time of
    `str`.
    """
    if not len(starts):
        return []
    numbers = np.stack([starts, lengths], axis=1).ravel()
    largest = int(numbers.max())
    numbers = numbers.astype(np.uint32 if largest < 2**32 else np.uint64)
    digits = len(str(largest))
    characters = np.full((len(numbers), digits + 1), ord(" "), np.uint8)
    is_written = np.ones(characters.shape, bool)
    rest = numbers
    for column in reversed(range(digits)):
        is_written[:, column] = rest > 0
        tens = rest // 10
        characters[:, column] = rest - 10 * tens + ord("0")
        rest = tens
    characters[2 * first_runs[1:] - 1, digits] = ord("\n")
    return characters[is_written][:-1].tobytes().decode().split("\n")


def parse(runs: str) -> tuple[Int64Array, Int64Array]:
    """Starts (from 1) and lengths of one nucleus's runs, both (R,) int64; empty for "".

    Raises: UserError: an odd count of numbers, a number that is no positive integer, runs out of
        order or overlapping.
    """
    starts, lengths, _ = parse_rows([runs])
    return starts, lengths


def parse_rows(rows: Sequence[str]) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Starts, lengths and row numbers (from 0) of many nuclei's runs, each (R,) int64, in one pass.

    Raises:
        UserError: a row that `fault` objects to; the first one is named, counted from 1.
    """
    if not rows:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
    text = "\n".join(rows)
    characters = np.frombuffer(text.encode(), np.uint8)
    is_digit = (characters >= ord("0")) & (characters <= ord("9"))
    newlines = np.flatnonzero(characters == ord("\n"))
    spaces = np.count_nonzero(characters == ord(" "))
    # A row with a newline in it would shift the rows after it.
    if (
        np.count_nonzero(is_digit) + len(newlines) + spaces == len(characters)
        and len(newlines) == len(rows) - 1
    ):
        numbers = np.fromstring(text, np.int64, sep=" ") if is_digit.any() else np.empty(0, np.int64)
        first_digits = np.flatnonzero(is_digit & ~np.append(False, is_digit[:-1]))
        counts = np.diff(np.searchsorted(first_digits, newlines), prepend=0, append=len(numbers))
        row_of_run = np.repeat(np.arange(len(rows)), counts // 2)
        if not (counts % 2).any() and _are_sound(numbers[0::2], numbers[1::2], row_of_run):
            return numbers[0::2], numbers[1::2], row_of_run
    for number, row in enumerate(rows, start=1):
        message = fault(row)
        if message:
            raise UserError(f"row {number} of {len(rows)}: {message}" if len(rows) > 1 else message)
    raise AssertionError("rows were refused, but no row has a fault")


def _are_sound(starts: Int64Array, lengths: Int64Array, row_of_run: Int64Array) -> bool:
    if not len(starts):
        return True
    if min(starts.min(), lengths.min()) < 1 or max(starts.max(), lengths.max()) > _LARGEST_NUMBER:
        return False
    is_behind = starts[1:] >= starts[:-1] + lengths[:-1]
    return bool((is_behind | (row_of_run[1:] != row_of_run[:-1])).all())


def find_overlaps(
    starts: Int64Array, lengths: Int64Array, row_of_run: Int64Array, image_of_row: Sequence[int]
) -> Iterator[tuple[int, int, int]]:
    """Pairs of rows of one image that share pixels: earlier row, later row, first shared pixel.

    Takes the runs of many nuclei as `parse_rows` gives them, none beyond LARGEST_IMAGE, and the
    number of each row's image. A row that overlaps several others is in at least one pair; without
    a pair no two rows overlap. Pixels count from 1.
    """
    # The images lie one after the other on one line of pixels, so that one sort serves for all.
    offsets = np.asarray(image_of_row, np.int64)[row_of_run] * (LARGEST_IMAGE + 1)
    order = np.argsort(starts + offsets, kind="stable")
    first_pixels, rows = (starts + offsets)[order], row_of_run[order]
    last_pixels = first_pixels + lengths[order] - 1
    # Each run is compared with the one before it that reaches furthest, not only with its
    # neighbour.
    furthest = np.maximum.accumulate(last_pixels)
    reaching = np.maximum.accumulate(np.where(last_pixels == furthest, np.arange(len(order)), 0))
    meeting = np.flatnonzero(first_pixels[1:] <= furthest[:-1]) + 1
    rows_here, rows_there = rows[meeting], rows[reaching[meeting - 1]]
    earlier, later = np.minimum(rows_here, rows_there), np.maximum(rows_here, rows_there)
    _, first = np.unique(earlier * (len(image_of_row) + 1) + later, return_index=True)
    for place in np.sort(first).tolist():
        yield int(earlier[place]), int(later[place]), int(starts[order[meeting[place]]])


def fault(runs: str) -> str:
    """Description of what is wrong with the runs of one nucleus; empty if they are well-formed."""
    words = [word for word in runs.split(" ") if word]
    for word in words:
        if not (word.isascii() and word.isdigit()):
            return f"{word[:40]!r} is not a whole number; expected `start length` pairs separated by spaces, or nothing"
        if len(word.lstrip("0")) > 18:  # counted, since Python refuses to read thousands of digits
            return f"{word[:40]} is larger than any image"
    if len(words) % 2:
        return f"{len(words)} numbers; expected pairs of start and length, so an even count"
    end = 0
    previous = (0, 0)
    numbers = [int(word.lstrip("0") or "0") for word in words]
    for start, length in zip(numbers[0::2], numbers[1::2], strict=True):
        if start < 1:
            return f"a run starts at {start}; pixels are counted from 1"
        if length < 1:
            return f"the run at {start} has the length {length}; expected at least 1"
        if start < previous[0]:
            return f"the run at {start} comes after the run at {previous[0]}; expected ascending starts"
        if start < end:
            return f"the run at {start} overlaps the run `{previous[0]} {previous[1]}` before it"
        previous, end = (start, length), start + length
    return ""


def decode(runs: str, height: int, width: int) -> Mask:
    """Mask (H, W) bool of the runs of one nucleus; the empty string gives an empty mask.

    Raises:
        UserError: runs that cannot be parsed, or that leave the image.
    """
    return decode_label_map([runs], height, width) > 0


def decode_label_map(rows: Sequence[str], height: int, width: int) -> LabelMap:
    """Decodes to a label map (H, W) int32: the nucleus of row k gets label k + 1; "" is no nucleus.

    Raises:
        UserError: runs that cannot be parsed, that leave the image, or two nuclei on one pixel.
    """
    starts, lengths, row_of_run = parse_rows(rows)
    ends = starts + lengths - 1
    outside = np.flatnonzero(ends > height * width)
    if outside.size:
        run = outside[0]
        raise UserError(
            f"nucleus {row_of_run[run] + 1}: the run `{starts[run]} {lengths[run]}` ends at pixel "
            f"{ends[run]}, but an image of height {height} and width {width} has "
            f"{height * width}; are height and width swapped?"
        )
    before = np.cumsum(lengths) - lengths
    positions = np.repeat(starts - 1 - before, lengths) + np.arange(lengths.sum())
    labels = np.repeat(row_of_run + 1, lengths).astype(np.int32)
    pixels = np.zeros(height * width, np.int32)
    pixels[positions] = labels
    lost = np.flatnonzero(pixels[positions] != labels)
    if lost.size:
        position = positions[lost[0]]
        raise UserError(f"nuclei {labels[lost[0]]} and {pixels[position]} overlap at pixel {position + 1}")
    return np.ascontiguousarray(pixels.reshape(width, height).T)
