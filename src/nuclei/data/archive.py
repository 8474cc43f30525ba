"""Archives of the competition, zip or unpacked folder: what they hold, whether it is sound, and their safe unpacking.

Nothing that an archive says is believed: names, links, sizes and checksums are looked at before and while its files
are written, and only files of the known layout are written at all.
"""

import hashlib
import logging
import os
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from nuclei.errors import DamagedArchiveError, UserError

log = logging.getLogger(__name__)


LAYOUT = "<id>/images/<id>.png and <id>/masks/<name>.png"


SUBSETS = ("stage1_train", "stage1_test")


# The real archive has 29,650 files of 83 MB in all, the largest of 1.4 MB.
MAX_FILES = 500_000


MAX_FILE_BYTES = 64 * 2**20


MAX_TOTAL_BYTES = 4 * 2**30


MAX_RATIO = 100


PNG_START = b"\x89PNG\r\n\x1a\n"


PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class Member:
    """One file of an archive; `path` is `<id>/images/<file>` or `<id>/masks/<file>`, `size` in bytes."""

    path: str
    size: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Tree:
    """What was unpacked: sorted image ids, number of masks, bytes, and a digest of all names and contents.

    The digest is that of the lines of `sha256sum` sorted by path, so it does not depend on where the files came from.
    """

    image_ids: tuple[str, ...]
    masks: int
    size: int
    sha256: str


@contextmanager
def open_members(source: Path, subset: str) -> Iterator[list[Member]]:
    """The files of a zip or folder that belong to `subset`, sorted by path; readable inside the block.

    Raises:
        DamagedArchiveError: not a whole zip file.
        UserError: unsafe names, links, too large, or nothing in the layout of the competition.
    """
    if source.is_dir():
        yield _choose_members(source, subset, _list_folder(source))
        return
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DamagedArchiveError(
            f"{source}: {_describe_start(source)}; expected a zip file. Fetch it again"
        ) from error
    with archive:
        yield _choose_members(source, subset, _list_zip(archive, source))


def unpack(source: Path, subset: str, folder: Path) -> Tree:
    """Writes the files of `subset` into the new folder `folder` and says what they are.

    Raises:
        DamagedArchiveError: a checksum is wrong, a picture is cut off, the zip is not whole.
        UserError: the archive is unsafe or is not the competition's; see `open_members` and `check_members`.
    """
    with open_members(source, subset) as members:
        image_ids, masks = check_members(source, subset, members)
        folder.mkdir(parents=True)
        digest = hashlib.sha256()
        made: set[Path] = set()
        size = 0
        for member in tqdm(members, desc=f"unpack {subset}", unit=" files", disable=None):
            content = member.read()
            if not content.startswith(PNG_START) or PNG_END not in content:
                raise DamagedArchiveError(f"{source}: {member.path} is no whole PNG file; fetch the archive again")
            path = folder / member.path
            if path.parent not in made:
                path.parent.mkdir(parents=True, exist_ok=True)
                made.add(path.parent)
            with open(path, "xb") as file:
                file.write(content)
            digest.update(f"{hashlib.sha256(content).hexdigest()}  {member.path}\n".encode())
            size += len(content)
    return Tree(image_ids, masks, size, digest.hexdigest())


def check_members(source: Path, subset: str, members: Iterable[Member]) -> tuple[tuple[str, ...], int]:
    """Sorted image ids and the number of masks of an archive that is complete.

    Raises:
        UserError: an id without its one image `<id>.png`, or a training id without a mask.
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
    wrong = [image_id for image_id, names in images.items() if names != [f"{image_id}.png"]]
    if wrong:
        raise UserError(
            f"{source}: {_name_some(wrong)} should hold one image named after its folder, found {images[wrong[0]]} "
            f"in the first; expected {LAYOUT}. Fetch the archive again or mend the folder"
        )
    bare = [image_id for image_id in images if image_id not in masks]
    if subset == "stage1_train" and bare:
        raise UserError(
            f"{source}: {_name_some(bare)} has no mask, so nothing can be learnt from it; expected {LAYOUT}. "
            "Leave such images out, and check that this is not the archive of test images"
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
    total = sum(entry.file_size for entry in entries)
    if total > MAX_RATIO * source.stat().st_size + MAX_FILE_BYTES:
        raise UserError(f"{source}: {total} bytes unpacked from {source.stat().st_size}: a zip bomb, not unpacked")
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{source}: entry {entry.filename!r} is a link or device, expected plain files; {_FOREIGN}")
        _check_name(source, entry.orig_filename)
        if not entry.is_dir():
            yield Member(entry.filename, entry.file_size, partial(_read_entry, archive, entry, source))


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, source: Path) -> bytes:
    try:
        return archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DamagedArchiveError(
            f"{source}: {entry.filename} is damaged ({error}); fetch the archive again"
        ) from error
    except RuntimeError as error:  # encrypted, or a compression that Python has not
        raise UserError(f"{source}: {entry.filename} cannot be unpacked ({error}); {_FOREIGN}") from error


_FOREIGN = "this is not the competition's archive. Nothing was unpacked; get it from its official place"


def _check_name(source: Path, name: str) -> None:
    parts = name.removesuffix("/").split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or ":" in name or not name.isprintable():
        raise UserError(f"{source}: entry {name!r} could be written outside of its folder; {_FOREIGN}")


def _choose_members(source: Path, subset: str, found: Iterable[Member]) -> list[Member]:
    """The members in the layout, with `<id>/...` as path whatever folders the archive puts around."""
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
            raise UserError(f"{source}: {member.path} goes past the limit of {limits}; {_FOREIGN}")
        groups.setdefault("/".join(prefix).lstrip("/"), []).append(
            Member(f"{image_id}/{kind}/{name}", member.size, member.read)
        )
    members = sorted(groups[_choose_prefix(source, subset, groups)], key=lambda member: member.path)
    _check_distinct(source, members)
    if others:
        log.info("%s: %d other files left aside, the first %s", source.name, len(others), others[0])
    return members


def _choose_prefix(source: Path, subset: str, prefixes: Iterable[str]) -> str:
    named = [prefix for prefix in prefixes if prefix.rsplit("/", 1)[-1] == subset]
    usable = named or [prefix for prefix in prefixes if prefix.rsplit("/", 1)[-1] not in SUBSETS]
    if len(usable) != 1:
        raise UserError(
            f"{source}: the pictures of {subset} lie in {sorted(prefixes) or 'no folder at all'}; "
            f"expected {LAYOUT} at the top or in one folder {subset}. Is this the right archive?"
        )
    return usable[0]


def _check_distinct(source: Path, members: list[Member]) -> None:
    if len(members) > MAX_FILES:
        raise UserError(f"{source}: {len(members)} files, expected at most {MAX_FILES}; {_FOREIGN}")
    seen: dict[str, str] = {}
    for member in members:
        # On some file systems two such names are one file, and the later would overwrite the earlier.
        key = unicodedata.normalize("NFC", member.path).casefold()
        if key in seen:
            raise UserError(f"{source}: {seen[key]} and {member.path} are the same file on some systems; {_FOREIGN}")
        seen[key] = member.path


def _describe_start(source: Path) -> str:
    with open(source, "rb") as file:
        start = file.read(512)
    size = source.stat().st_size
    if start.lstrip().startswith(b"<"):
        return f"a web page of {size} bytes (a login, a proxy or an error page?)"
    return f"a zip file cut off at {size} bytes" if start.startswith(b"PK\x03\x04") else f"{size} bytes of another kind"


def _name_some(image_ids: list[str]) -> str:
    rest = f" (and {len(image_ids) - 3} more)" if len(image_ids) > 3 else ""
    return ", ".join(sorted(image_ids)[:3]) + rest
