"""Archives of the competition, zip or unpacked folder: checked and safely unpacked.

Archives are not trusted: names, links, sizes and checksums are checked before and while files are
written, and only files of the known layout are written.
"""

import hashlib
import logging
import os
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nuclei.errors import DamagedArchiveError, UserError
from nuclei.io.names import check_name
from nuclei.progress import show_progress

log = logging.getLogger(__name__)


LAYOUT = "<id>/images/<id>.png and <id>/masks/<name>.png"
SUBSETS = ("stage1_train", "stage1_test")
# The real archive has 29,650 files of 83 MB in all, the largest of 1.4 MB.
MAX_FILES = 500_000
MAX_FILE_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 4 * 2**30
MAX_DIRECTORY_BYTES = 64 * 2**20
"""Limit of a zip's directory, which is read into memory as a whole."""
MAX_RATIO = 100
CHUNK_BYTES = 2**18
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND\xaeB`\x82"
_FOREIGN = "this is not the competition's archive. Nothing was unpacked; download it from its official place"


@dataclass(frozen=True)
class Member:
    """A file of an archive: `path` is `<id>/images/<file>` or `<id>/masks/<file>`, `size` bytes."""

    path: str
    size: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Tree:
    """Unpacked files: sorted image ids, number of masks, bytes, and a digest of names and contents.

    The digest is that of the lines of `sha256sum` sorted by path, whatever the archive's own order.
    """

    image_ids: tuple[str, ...]
    masks: int
    size: int
    sha256: str


@contextmanager
def open_members(source: Path, subset: str) -> Iterator[list[Member]]:
    """Files of a zip or folder that belong to `subset`, sorted by path; open inside the block.

    Raises:
        DamagedArchiveError: not a complete zip file.
        UserError: unsafe names, links, too large, or nothing in the layout of the competition.
    """
    if source.is_dir():
        yield _choose_members(source, subset, _list_folder(source))
        return
    with open_zip(source) as found:
        yield _choose_members(source, subset, found)


@contextmanager
def open_zip(source: Path) -> Iterator[Iterator[Member]]:
    """All files of a zip by their paths in it; open inside the block.

    Raises:
        DamagedArchiveError: not a complete zip file.
        UserError: unsafe names, links, or too large.
    """
    _check_directory_size(source)
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, EOFError, zlib.error, ValueError, NotImplementedError) as error:
        raise DamagedArchiveError(
            f"{source}: {_describe_start(source)}; expected a zip file. Download it again"
        ) from error
    with archive:
        yield _list_zip(archive, source)


def unpack(source: Path, subset: str, folder: Path) -> Tree:
    """Writes the files of `subset` into the new folder `folder`.

    Raises:
        DamagedArchiveError: a wrong checksum, a truncated image or zip.
        UserError: unsafe, or not the competition's; see `open_members` and `check_members`.
    """
    with open_members(source, subset) as members:
        image_ids, masks = check_members(source, subset, members)
        folder.mkdir(parents=True)
        digest = hashlib.sha256()
        size = 0
        for member in show_progress(members, f"unpack   {source.name}", "files"):
            content = member.read()
            _write_png(source, folder, member, content)
            digest.update(f"{hashlib.sha256(content).hexdigest()}  {member.path}\n".encode())
            size += len(content)
    return Tree(image_ids, masks, size, digest.hexdigest())


def _write_png(source: Path, folder: Path, member: Member, content: bytes) -> None:
    if not content.startswith(PNG_START) or PNG_END not in content:
        raise DamagedArchiveError(f"{source}: {member.path} is not a complete PNG; download the archive again")
    path = folder / member.path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "xb") as file:
            file.write(content)
    except OSError as error:
        error.filename = str(path)  # a full disk does not say which file
        raise


def check_image_ids(source: Path, ids: Collection[str]) -> None:
    """Refuses image ids that are unsafe in tables, pages and commands; `source` is named in errors.

    Raises:
        UserError: as of `check_name`, with the number of such ids.
    """
    faults = []
    for image_id in ids:
        try:
            check_name(image_id)
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError(f"{source}: {len(faults)} of {len(ids)} image ids: {faults[0]}; rename the images")


def check_members(source: Path, subset: str, members: Iterable[Member]) -> tuple[tuple[str, ...], int]:
    """Sorted image ids and number of masks of a complete archive.

    Raises: UserError: an unsafe id, one without its image `<id>.png`, or a training image without a
        mask.
    """
    images: dict[str, list[str]] = {}
    masks: dict[str, int] = {}
    for member in members:
        image_id, kind, name = member.path.split("/")
        images.setdefault(image_id, [])
        if kind == "images":
            images[image_id].append(name)
        else:
            masks[image_id] = masks.get(image_id, 0) + 1
    check_image_ids(source, images)
    wrong = [image_id for image_id, names in images.items() if names != [f"{image_id}.png"]]
    if wrong:
        raise UserError(
            f"{source}: {_name_some(wrong)} should hold one image named after its folder, found "
            f"{images[wrong[0]]} in the first; expected {LAYOUT}. Download the archive again or "
            "correct the folder"
        )
    bare = [image_id for image_id in images if image_id not in masks]
    if subset == "stage1_train" and bare:
        raise UserError(
            f"{source}: {_name_some(bare)} has no mask; expected {LAYOUT}. "
            "Remove such images, and check that this is not the archive of test images"
        )
    return tuple(sorted(images)), sum(masks.values())


def _list_folder(source: Path) -> Iterator[Member]:
    for folder, folders, names in os.walk(source, followlinks=True):
        if len(Path(folder).relative_to(source).parts) >= 5:  # a link may lead into itself
            folders.clear()
        for name in names:
            path = Path(folder, name)
            yield Member(path.relative_to(source).as_posix(), path.stat().st_size, path.read_bytes)


def _list_zip(archive: zipfile.ZipFile, source: Path) -> Iterator[Member]:
    entries = archive.infolist()
    total, packed = sum(entry.file_size for entry in entries), source.stat().st_size
    if total > MAX_RATIO * packed + MAX_FILE_BYTES:
        raise UserError(f"{source}: {total} bytes unpacked from {packed}: a zip bomb, not unpacked")
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(
                f"{source}: entry {entry.filename!r} is a link or device, expected plain files; {_FOREIGN}"
            )
        _check_name(source, entry.orig_filename)
        if not entry.is_dir():
            yield Member(entry.filename, entry.file_size, partial(_read_entry, archive, entry, source))


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, source: Path) -> bytes:
    """Content of a file, of no more than the size that the zip states.

    In chunks: unpacked as a whole, a file that is larger than stated would fill the memory first.
    """
    chunks, size = [], 0
    try:
        with archive.open(entry) as file:
            while chunk := file.read(CHUNK_BYTES):
                chunks.append(chunk)
                size += len(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DamagedArchiveError(
            f"{source}: {entry.filename} is damaged ({error!s:.300}); download the archive again"
        ) from error
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or an unknown compression
        raise UserError(f"{source}: {entry.filename} cannot be unpacked ({error}); {_FOREIGN}") from error
    if size != entry.file_size:
        raise DamagedArchiveError(
            f"{source}: {entry.filename} has {size} bytes, the zip states {entry.file_size}; download it again"
        )
    return b"".join(chunks)


def _check_directory_size(source: Path) -> None:
    """Refuses a zip with a huge directory before it is read.

    Source: PKWARE APPNOTE.TXT 6.3.10, section 4.3.16.
    """
    with open(source, "rb") as file:
        file.seek(max(0, source.stat().st_size - 2**16 - 22))
        end = file.read()
    start = end.rfind(b"PK\x05\x06")
    if start < 0 or len(end) < start + 22:
        return  # no zip, which is said later
    size = int.from_bytes(end[start + 12 : start + 16], "little")
    if size > MAX_DIRECTORY_BYTES:  # also of a zip64, which has 2**32 - 1 here
        raise UserError(
            f"{source}: a directory of {size} bytes, expected at most {MAX_DIRECTORY_BYTES}; {_FOREIGN}"
        )


def _check_name(source: Path, name: str) -> None:
    parts = name.removesuffix("/").split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or ":" in name or not name.isprintable():
        raise UserError(f"{source}: entry {name!r} could be written outside of its folder; {_FOREIGN}")


def _choose_members(source: Path, subset: str, found: Iterable[Member]) -> list[Member]:
    """Members in the layout, their paths `<id>/...` without the folders around them."""
    groups: dict[str, list[Member]] = {}
    others: list[str] = []
    total = 0
    for member in found:
        *prefix, image_id, kind, name = ["", "", *member.path.split("/")]
        hidden = "__MACOSX" in prefix or image_id.startswith(".") or name.startswith(".")
        if hidden or not image_id or kind not in ("images", "masks") or not name.endswith(".png"):
            others.append(member.path)
            continue
        total += member.size
        if member.size > MAX_FILE_BYTES or total > MAX_TOTAL_BYTES:
            limits = f"{MAX_FILE_BYTES} bytes a file and {MAX_TOTAL_BYTES} in all"
            raise UserError(f"{source}: {member.path} exceeds the limit of {limits}; {_FOREIGN}")
        groups.setdefault("/".join(prefix).lstrip("/"), []).append(
            Member(f"{image_id}/{kind}/{name}", member.size, member.read)
        )
    members = sorted(groups[_choose_prefix(source, subset, groups)], key=lambda member: member.path)
    _check_distinct(source, members)
    if others:
        log.info("%s: %d other files ignored, the first %s", source.name, len(others), others[0])
    return members


def _choose_prefix(source: Path, subset: str, prefixes: Iterable[str]) -> str:
    named = [prefix for prefix in prefixes if prefix.rsplit("/", 1)[-1] == subset]
    usable = named or [prefix for prefix in prefixes if prefix.rsplit("/", 1)[-1] not in SUBSETS]
    if len(usable) != 1:
        raise UserError(
            f"{source}: the images of {subset} are in {sorted(prefixes) or 'no folder at all'}; "
            f"expected {LAYOUT} at the top or in one folder {subset}. Is this the right archive?"
        )
    return usable[0]


def _check_distinct(source: Path, members: list[Member]) -> None:
    if len(members) > MAX_FILES:
        raise UserError(f"{source}: {len(members)} files, expected at most {MAX_FILES}; {_FOREIGN}")
    seen: dict[str, str] = {}
    for member in members:
        # on some file systems two such names are one file
        key = unicodedata.normalize("NFC", member.path).casefold()
        if key in seen:
            raise UserError(
                f"{source}: {seen[key]} and {member.path} are the same file on some systems; {_FOREIGN}"
            )
        seen[key] = member.path


def _describe_start(source: Path) -> str:
    with open(source, "rb") as file:
        start = file.read(512)
    size = source.stat().st_size
    if start.lstrip().startswith(b"<"):
        return f"a web page of {size} bytes (a login, a proxy or an error page?)"
    return (
        f"a zip file cut off at {size} bytes"
        if start.startswith(b"PK\x03\x04")
        else f"{size} bytes of another kind"
    )


def _name_some(image_ids: list[str]) -> str:
    rest = f" (and {len(image_ids) - 3} more)" if len(image_ids) > 3 else ""
    return ", ".join(sorted(image_ids)[:3]) + rest
