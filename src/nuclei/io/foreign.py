"""Files that are not read here, known by first bytes or name: what they are, and the remedy."""

import re
from pathlib import Path

_FIJI = "open it in Fiji and save it as OME-TIFF"
_CONTENT = (
    (
        re.compile(rb".{4}ftyp(heic|heix|hevc|mif1|msf1)", re.DOTALL),
        "a phone's HEIC picture; save it as JPEG",
    ),
    (re.compile(rb".{4}ftypavif", re.DOTALL), "an AVIF picture; save it as PNG"),
    (re.compile(rb".{4}ftyp|RIFF.{4}AVI ", re.DOTALL), "a film; save its frames as TIFF or PNG"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ", re.DOTALL), "JPEG XL; save it as PNG"),
    (re.compile(rb"II\xbc\x01", re.DOTALL), "JPEG XR; save it as TIFF or PNG"),
    (re.compile(rb".{128}DICM", re.DOTALL), "DICOM; save it as TIFF or PNG"),
    (
        re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE),
        "a web page instead of a file; download it again",
    ),
    (
        re.compile(rb"version https://git-lfs"),
        "a pointer of Git LFS instead of the file; fetch it by `git lfs pull`",
    ),
    (
        re.compile(rb"PK\x03\x04", re.DOTALL),
        "a zip archive or an Office document; unpack it or save its pictures",
    ),
    (re.compile(rb"\x1f\x8b", re.DOTALL), "compressed by gzip; unpack it"),
    (re.compile(rb"%PDF"), "a PDF; save its pictures as TIFF or PNG"),
    (re.compile(rb"\x89HDF", re.DOTALL), f"HDF5, as of Imaris or ilastik; {_FIJI}"),
    (
        re.compile(rb"\x93NUMPY", re.DOTALL),
        "a NumPy array; save it as TIFF, or give it to `nuclei.segment`",
    ),
    (re.compile(rb"\s*(<\?xml[^>]*>\s*)?<svg", re.DOTALL), "an SVG drawing; save it as PNG"),
)
_MICROSCOPES = {
    ".dm3", ".dm4", ".dv", ".ets", ".flex", ".ims", ".lof", ".mha", ".mrc", ".mrxs", ".mvd2", ".nrrd", ".oib", ".oif",
    ".oir", ".r3d", ".vsi", ".xdce", ".zvi",
}  # fmt: skip
START = 132
"""Bytes at the beginning of a file that `describe` looks at."""


def describe(path: Path) -> str:
    """What a file that is not read here is, and what to do with it; empty if unknown."""
    with path.open("rb") as file:
        start = file.read(START)
    for signature, description in _CONTENT:
        if signature.match(start):
            return description
    suffix = path.suffix.lower()
    return f"a file of a microscope ({suffix}); {_FIJI}" if suffix in _MICROSCOPES else ""


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a picture in the format (OME-)Zarr."""
    names = (".zattrs", ".zgroup", ".zarray", "zarr.json")
    return folder.suffix.lower() == ".zarr" or any((folder / name).exists() for name in names)


ZARR = f"a Zarr, which is not read here; {_FIJI}"
