"""Files as people have them: which of a folder are pictures, what they are called, and the planes in them.

What a file is, its first bytes decide, not its name. A header is read before the pixels are: a
small file can claim more of them than the memory holds.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nuclei.arrays import Pixels
from nuclei.errors import UserError
from nuclei.io import foreign, raster, tiff, vendor_formats
from nuclei.io.picture import (
    DISK_FULL,
    Contents,
    Picture,
    Plane,
    Reading,
    allocate,
    check_size,
    printable,
)
from nuclei.io.plane_checks import find_doubts

SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".btf", ".tf8", ".bmp", ".gif", ".webp",
    ".jp2", ".j2k", ".j2c", ".jpx", ".jpf", ".pgm", ".ppm", ".pbm", ".pnm", ".lsm", ".stk", ".svs", ".ndpi", ".scn",
    ".bif", ".qptiff",
    *vendor_formats.READERS,
)  # fmt: skip
"""Endings of files that ought to be pictures: without a picture's content they fail instead of
being left aside."""

_SIGNATURES = (
    ("tiff", re.compile(rb"II[*+]\0|MM\0[*+]", re.DOTALL)),
    (
        "raster",
        re.compile(
            rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|BM.{12}[\x0c-\x7c]\0\0\0",
            re.DOTALL,
        ),
    ),
    (".nd2", re.compile(rb"\xda\xce\xbe\x0a", re.DOTALL)),
    ("raster", re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", re.DOTALL)),
    (".czi", re.compile(rb"ZISRAWFILE", re.DOTALL)),
    (".lif", re.compile(rb"\x70\0\0\0.{4}\x2a", re.DOTALL)),
)
_NETPBM = re.compile(rb"P[1-6]\s")
_PAGE = re.compile(r"(.+)_page\d+", re.DOTALL)


@dataclass(frozen=True)
class Found:
    """Pictures by the name of their results, and what else lies there: (name, why it is left aside)."""

    pictures: dict[str, Path]
    left_aside: list[tuple[str, str]]


def find_pictures(folder: Path) -> Found:
    """The pictures of a folder, or the one file given. Hidden files are passed over.

    Raises:
        UserError: there is no such folder or file; there are no pictures in it.
    """
    if not folder.exists():
        raise UserError(f"{printable(folder)}: no such folder or file; IMAGES= is where your pictures are")
    if folder.is_dir() and foreign.is_zarr(folder):
        raise UserError(f"{printable(folder)}: {foreign.ZARR}")
    paths = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    pictures, left_aside = [], []
    for path in paths:
        if path.name.startswith(".") and path != folder:
            continue
        reason = _why_left_aside(path)
        if reason is None:
            pictures.append(path)
        else:
            left_aside.append((printable(path.name), reason))
    if not pictures:
        there = "; ".join(f"{name}: {reason}" for name, reason in left_aside[:5]) or "it is empty"
        raise UserError(f"{printable(folder)}: no pictures there ({there})")
    return Found(name_results(pictures), left_aside)


def _why_left_aside(path: Path) -> str | None:
    """Why an entry of a folder is no picture; None for one."""
    try:
        if path.is_dir():
            return foreign.ZARR if foreign.is_zarr(path) else "a folder; name it as IMAGES= for its pictures"
        if not path.exists():
            return "a link to nothing"
        if not path.is_file():
            return "no regular file"
        if sniff(path) is not None or path.suffix.lower() in SUFFIXES:
            return None
        return f"no picture that is read here ({foreign.describe(path) or path.suffix or 'no ending'})"
    except OSError as error:
        return f"cannot be opened ({error.strerror})" if path.suffix.lower() not in SUFFIXES else None


def sniff(path: Path) -> str | None:
    """Which reader takes a file, by its first bytes: tiff, raster, .czi, .nd2 or .lif; None for other content."""
    with path.open("rb") as file:
        start = file.read(32)
    if path.suffix.lower() in (".pgm", ".ppm", ".pbm", ".pnm") and _NETPBM.match(start):
        return "raster"
    if path.suffix.lower() == ".nd2" and start[4:8] == b"jP  ":
        return ".nd2"  # Nikon's older files are JPEG 2000 with more in them
    return next((kind for kind, signature in _SIGNATURES if signature.match(start)), None)


def name_results(paths: list[Path]) -> dict[str, Path]:
    """Files by the name of their results: without its ending where that is the name of no other result.

    No two names are equal, also where upper and lower case are the same, and none is that of
    another file's page.
    """
    short = {path: printable(path.stem) for path in paths}
    full = {path: printable(path.name) for path in paths}
    names = dict(short)
    while True:
        taken = [name.casefold() for name in names.values()]
        bases = set(taken)
        clashing = []
        for path, name in names.items():
            page = _PAGE.fullmatch(name.casefold())
            twice = taken.count(name.casefold()) > 1
            if name != full[path] and (twice or (page and page[1] in bases)):
                clashing.append(path)
        if not clashing:
            return _number_equal_names(names)
        names |= {path: full[path] for path in clashing}


def _number_equal_names(names: dict[Path, str]) -> dict[str, Path]:
    """Names that are still equal but for upper and lower case, or no file name, with a number behind."""
    found: dict[str, Path] = {}
    used: set[str] = set()
    for path, name in names.items():
        name = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", name)
        unique, number = name, 2
        while unique.casefold() in used:
            unique, number = f"{name}-{number}", number + 1
        used.add(unique.casefold())
        found[unique] = path
    return found


def open_file(path: Path, reading: Reading) -> AbstractContextManager[Contents]:
    """The planes of a file, by the reader for its content.

    Raises:
        UserError: content that none reads. Entering the context raises what the readers do.
    """
    if path.stat().st_size == 0:
        raise UserError("is empty; fetch or save it again")
    kind = sniff(path)
    if kind is None:
        raise UserError(f"is {foreign.describe(path) or 'no picture by its content; save it as TIFF or PNG'}")
    if kind in vendor_formats.READERS:
        return vendor_formats.open_vendor(path, kind, reading)
    return tiff.open_tiff(path, reading) if kind == "tiff" else raster.open_raster(path, reading)


@dataclass(frozen=True)
class Survey:
    """What a file holds by its headers: its format, the number of planes, their pixels together, the largest's."""

    format: str
    planes: int
    pixels: int
    largest: int


def survey_file(path: Path, reading: Reading) -> Survey:
    """What a file holds, its pixels left unread.

    Raises:
        UserError: as in `read_pictures`.
    """
    with _errors_named(path), open_file(path, reading) as contents:
        sizes = [plane.height * plane.width for plane in contents.planes]
        return Survey(contents.format, len(sizes), sum(sizes), max(sizes, default=0))


def read_pictures(path: Path, name: str, reading: Reading | None = None) -> Iterator[Picture]:
    """The planes of a file one by one; those of a file with several have their number in the name.

    Raises: UserError: a file that cannot be read; too many pixels; several channels of which none
        is chosen.
    """
    reading = reading or Reading()
    with _errors_named(path), open_file(path, reading) as contents:
        count = len(contents.planes)
        for number, plane in enumerate(contents.planes, start=1):
            page = f"{name}_page{number:03d}" if count > 1 else name
            yield _read_plane(page, plane, contents, reading)


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Every error about the content of a file becomes a UserError with its name; a full disk stays an OSError."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{printable(path)}: {error}") from error
    except MemoryError as error:
        raise UserError(
            f"{printable(path)}: takes more memory than there is; lower MAX_PIXELS or cut it up"
        ) from error
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        if error.errno is None:
            raise _unreadable(path, error) from error
        raise UserError(f"{printable(path)}: {error.strerror}") from error
    except Exception as error:  # decoders raise all kinds for a broken file
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return UserError(f"{printable(path)}: cannot be read ({printable(text)}); save it again")


def _read_plane(name: str, plane: Plane, contents: Contents, reading: Reading) -> Picture:
    pixels = plane.load()
    check_size(pixels.shape[0], pixels.shape[1], reading.max_pixels)
    if not pixels.dtype.isnative:
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    pixels, outside, note = fill_gaps(pixels, reading)
    kind = f"{contents.format}, {'grey' if pixels.ndim == 2 else 'colour'} {pixels.dtype}"
    doubts = find_doubts(pixels)
    said = tuple(one for one in (kind, *contents.notes, *plane.notes, note, *doubts) if one)
    return Picture(name, pixels, plane.pixel_size, plane.label, said, outside, doubts)


def fill_gaps(pixels: Pixels, reading: Reading) -> tuple[Pixels, npt.NDArray[np.bool_] | None, str]:
    """The plane with the median of its finite values where it has none, where that was, and a note.

    The median is background both in fluorescence and in bright field, so that no edge of a nucleus
    appears.

    Raises:
        UserError: no value is finite.
    """
    if pixels.dtype.kind != "f":
        return pixels, None, ""
    outside = allocate(pixels.shape[:2], bool, reading.scratch, "outside")
    rows = max(1, 2**22 // max(1, pixels.shape[1]))
    for top in range(0, len(pixels), rows):
        finite = np.isfinite(pixels[top : top + rows])
        outside[top : top + rows] = ~(finite if finite.ndim == 2 else finite.all(axis=2))
    count = int(np.count_nonzero(outside))
    if not count:
        return pixels, None, ""
    if count == outside.size:
        raise UserError("has no finite value; save it again with numbers")
    filled = allocate(pixels.shape, pixels.dtype, reading.scratch, "filled")
    step = max(1, int(np.sqrt(pixels.size / 2**24)))
    sample = pixels[::step, ::step]
    median = np.median(sample[~outside[::step, ::step]], axis=0).astype(pixels.dtype)
    for top in range(0, len(pixels), rows):
        band = np.array(pixels[top : top + rows])
        band[outside[top : top + rows]] = median
        filled[top : top + rows] = band
    return filled, outside, f"{count} of {outside.size} pixels are not finite: taken as background"
