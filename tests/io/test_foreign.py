"""Content that is not read is named with what to do about it."""

import pytest

from nuclei.io.microscopy import find_pictures, read_pictures


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic" + bytes(40), "HEIC picture; save it as JPEG"),
        ("a.dcm", bytes(128) + b"DICM", "DICOM; save it as TIFF or PNG"),
        ("a.npy", b"\x93NUMPY\x01\0", "NumPy array; save it as TIFF"),
        ("a.ims", b"\x89HDF\r\n\x1a\n", "HDF5.*save it as OME-TIFF"),
        ("a.dv", b"\xa0\xc0" + bytes(20), r"a file of a microscope \(.dv\).*save it as OME-TIFF"),
        ("a.xyz", b"??", r"\(.xyz\)"),
    ],
)
def test_a_file_that_is_no_picture_is_left_aside_with_what_to_do(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        find_pictures(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"\n<!DOCTYPE html><html>", "is a web page instead of a file; download it again"),
        ("a.tif", b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        ("a.jpg", b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        ("a.svs", b"nonsense", "no picture by its content"),
    ],
)
def test_a_picture_s_name_with_other_content_fails_with_what_it_is(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    path = find_pictures(tmp_path).pictures["a"]
    with pytest.raises(ValueError, match=said):
        list(read_pictures(path, "a"))


def test_a_zarr_is_no_folder_of_pictures(tmp_path):
    zarr = tmp_path / "a.ome.zarr"
    zarr.mkdir()
    (zarr / ".zattrs").write_text("{}")
    for folder in (tmp_path, zarr):
        with pytest.raises(ValueError, match=r"a Zarr, which is not read here.*save it as OME-TIFF"):
            find_pictures(folder)
