"""Run lengths: the competition's order of pixels, round trips, and faults that are named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nuclei.submission import rle

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
MASKS = arrays(np.bool_, SHAPES)
# Few labels on few pixels: nearly every nucleus has several pieces, and labels have gaps.
LABEL_MAPS = arrays(np.int32, SHAPES, elements=st.integers(0, 4))

# A busy machine may take long over an example; that is no fault.
unhurried = settings(deadline=None)


def pixels_of(runs, height):
    """(row, column) of each pixel, number by number: the definition, not the vectorised way."""
    numbers = list(map(int, runs.split()))
    pixels = [
        p
        for start, length in zip(numbers[::2], numbers[1::2], strict=True)
        for p in range(start, start + length)
    ]
    return [((pixel - 1) % height, (pixel - 1) // height) for pixel in pixels]


def test_runs_go_down_the_columns_and_count_from_one():
    mask = np.array([[1, 0, 1], [1, 0, 0]], bool)
    assert rle.encode(mask) == "1 2 5 1"


def test_a_run_goes_on_from_the_bottom_of_a_column_to_the_top_of_the_next():
    mask = np.array([[0, 1], [0, 1], [1, 0]], bool)
    assert rle.encode(mask) == "3 3"


@unhurried
@given(MASKS)
def test_a_mask_comes_back_as_it_was(mask):
    np.testing.assert_array_equal(rle.decode(rle.encode(mask), *mask.shape), mask)


@unhurried
@given(MASKS)
def test_runs_are_as_few_as_possible_and_cover_the_mask_alone(mask):
    runs = rle.encode(mask)
    assert sorted(pixels_of(runs, mask.shape[0])) == list(
        zip(*map(np.ndarray.tolist, np.nonzero(mask)), strict=True)
    )
    starts, lengths = rle.parse(runs)
    assert (starts[1:] > starts[:-1] + lengths[:-1]).all()


@unhurried
@given(LABEL_MAPS)
def test_each_nucleus_of_a_label_map_is_coded_as_its_own_mask(label_map):
    labels = [label for label in np.unique(label_map) if label]
    assert rle.encode_label_map(label_map) == [rle.encode(label_map == label) for label in labels]


@unhurried
@given(LABEL_MAPS)
def test_a_label_map_comes_back_with_labels_numbered_from_one(label_map):
    decoded = rle.decode_label_map(rle.encode_label_map(label_map), *label_map.shape)
    assert decoded.dtype == np.int32
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(
        decoded, np.unique(np.append(label_map, 0), return_inverse=True)[1][:-1].reshape(label_map.shape)
    )


@unhurried
@given(LABEL_MAPS, st.sampled_from([np.uint8, np.uint16, np.int64, np.uint64]))
def test_the_type_and_memory_order_of_a_label_map_do_not_matter(label_map, dtype):
    assert rle.encode_label_map(np.asfortranarray(label_map.astype(dtype))) == rle.encode_label_map(label_map)


@given(LABEL_MAPS)
def test_labels_beyond_2_to_the_63_stay_apart(label_map):
    large = np.where(label_map, np.uint64(2**64 - 8) + label_map.astype(np.uint64), np.uint64(0))
    assert rle.encode_label_map(large) == rle.encode_label_map(label_map)


@given(LABEL_MAPS)
def test_labels_may_be_as_large_as_their_type_allows(label_map):
    largest = np.iinfo(np.int64).max // max(int(label_map.max()), 1)
    assert rle.encode_label_map(label_map.astype(np.int64) * largest) == rle.encode_label_map(label_map)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (3, 4), (1, 1)])
def test_a_full_mask_is_one_run_and_an_empty_one_none(shape):
    assert rle.encode(np.ones(shape, bool)) == f"1 {shape[0] * shape[1]}"
    assert rle.encode(np.zeros(shape, bool)) == ""
    assert not rle.decode("", *shape).any()
    assert rle.encode_label_map(np.zeros(shape, np.int32)) == []
    assert not rle.decode_label_map([], *shape).any()


@unhurried
@given(st.lists(LABEL_MAPS.map(rle.encode_label_map), max_size=3))
def test_many_rows_are_parsed_as_each_one_is(parts):
    rows = [runs for part in parts for runs in [*part, ""]]
    starts, lengths, row_of_run = rle.parse_rows(rows)
    for number, row in enumerate(rows):
        alone = rle.parse(row)
        np.testing.assert_array_equal(starts[row_of_run == number], alone[0])
        np.testing.assert_array_equal(lengths[row_of_run == number], alone[1])
        assert " ".join(f"{start} {length}" for start, length in zip(*alone, strict=True)) == row


FAULTS = {
    "odd": ("1 2 3", "3 numbers"),
    "text": ("1 2 NaN 4", "'NaN' is not a whole number"),
    "fraction": ("1 2.0", "'2.0' is not a whole number"),
    "negative": ("-1 2", "'-1' is not a whole number"),
    "digits of another script": ("\N{ARABIC-INDIC DIGIT ONE} 2", "is not a whole number"),
    "tab": ("1\t2", "is not a whole number"),
    "two lines": ("1 2\n5 2", "is not a whole number"),
    "counted from zero": ("0 2", "a run starts at 0; pixels are counted from 1"),
    "no length": ("7 0", "the run at 7 has the length 0"),
    "descending": ("9 2 3 2", "the run at 3 comes after the run at 9"),
    "overlapping": ("3 4 6 2", "the run at 6 overlaps the run `3 4`"),
    "repeated": ("3 4 3 4", "the run at 3 overlaps the run `3 4`"),
    "beyond 64 bits": ("1 99999999999999999999", "larger than any image"),
    "a sum beyond 64 bits": ("5 9223372036854775807", "larger than any image"),
}


@pytest.mark.parametrize(("runs", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_in_the_runs_is_named(runs, message):
    with pytest.raises(ValueError, match=message):
        rle.parse(runs)
    with pytest.raises(ValueError, match="row 2 of 3: .*" + message):
        rle.parse_rows(["1 2", runs, "4 5"])


@unhurried
@given(st.lists(st.text("0123456789 -.\n", max_size=12), max_size=4))
def test_rows_are_refused_exactly_where_one_of_them_has_a_fault(rows):
    if any(rle.fault(row) for row in rows):
        with pytest.raises(ValueError, match=r"row|number|run|larger"):
            rle.parse_rows(rows)
    else:
        starts, _, row_of_run = rle.parse_rows(rows)
        assert len(starts) == sum(len(row.split()) // 2 for row in rows)
        np.testing.assert_array_equal(
            np.bincount(row_of_run, minlength=len(rows)), [len(r.split()) // 2 for r in rows]
        )


def test_a_pair_of_numbers_may_not_be_shared_by_two_rows():
    with pytest.raises(ValueError, match="row 1 of 2: 1 numbers"):
        rle.parse_rows(["1", "2"])


def test_runs_that_touch_are_no_fault():
    np.testing.assert_array_equal(rle.decode("1 2 3 1", 2, 2), [[True, True], [True, False]])


def test_a_run_off_the_image_is_refused():
    assert rle.decode("12 1", 3, 4)[2, 3]
    with pytest.raises(
        ValueError, match=r"`12 2` ends at pixel 13, but an image of height 3 and width 4 has 12"
    ):
        rle.decode("12 2", 3, 4)


def test_two_nuclei_on_one_pixel_are_refused():
    with pytest.raises(ValueError, match="nuclei 1 and 3 overlap at pixel 5"):
        rle.decode_label_map(["4 2", "1 2", "5 1"], 3, 4)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2)), np.zeros(4, np.int32), np.full((2, 2), -1), np.zeros((2, 2), bool)]
)
def test_what_is_no_label_map_is_refused(array):
    with pytest.raises(ValueError, match="expected"):
        rle.encode_label_map(array)


def test_what_is_no_mask_is_refused():
    with pytest.raises(ValueError, match="pass `mask > 0`"):
        rle.encode(np.full((2, 2), 255, np.uint8))


RUNS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12), st.integers(0, 1)), min_size=1, max_size=7)


@unhurried
@given(RUNS)
def test_overlaps_are_found_exactly_where_two_rows_of_one_image_share_a_pixel(runs):
    """One run a row, on two images; rows that overlap an earlier one, found by sets of pixels."""
    pixels = [set(range(start, start + length)) for start, length, _ in runs]
    sharing = {
        (a, b) for b in range(len(runs)) for a in range(b) if runs[a][2] == runs[b][2] and pixels[a] & pixels[b]
    }
    starts, lengths, images = (np.array(part, np.int64) for part in zip(*runs, strict=True))
    found = list(rle.find_overlaps(starts, lengths, np.arange(len(runs)), images.tolist()))
    assert {(a, b) for a, b, _ in found} <= sharing
    assert bool(found) == bool(sharing)
    assert all(pixel == min(pixels[a] & pixels[b]) for a, b, pixel in found)
    behind = {max(pair, key=lambda row: (starts[row], row)) for pair in sharing}
    assert behind <= {row for a, b, _ in found for row in (a, b)}


def test_a_row_that_lies_on_a_far_reaching_one_is_found_behind_a_neighbour_that_is_not():
    found = rle.find_overlaps(np.array([1, 10, 30]), np.array([100, 5, 5]), np.array([0, 1, 2]), [0, 0, 0])
    assert list(found) == [(0, 1, 10), (0, 2, 30)]
