"""Rules of a submission with trained weights, WEIGHTS=: a file, a folder, an ensemble's card.

What such files say and how they are named is data of others: names are checked before any of them
becomes a rule.
"""

import hashlib
import json
from pathlib import Path

from rules.book import Book
from rules.configs import canonical
from rules.experiments import average
from rules.settings import Settings
from rules.text import NAME, RefusedError, check_name, nearest, path_text, shell_text

SUFFIX, CARD_SUFFIX = ".safetensors", ".json"
PACKAGED = Path("src/nuclei/weights")
"""Networks of one file each, which an installed package carries."""
CARD_BYTES = 1_000_000
"""A card is a few kilobytes."""


def run_name(path: str) -> str:
    """Run name of given weights: their path as one word, with a digest if it is not plain."""
    plain = path.rstrip("/").removesuffix(SUFFIX).removesuffix(CARD_SUFFIX).replace("/", "_")
    safe = "".join(character if NAME.fullmatch("a" + character) else "_" for character in plain)
    return safe if safe == plain else f"{safe}_{hashlib.sha256(plain.encode()).hexdigest()[:6]}"


def read_members(card: Path) -> list[str]:
    """The members that the card of an ensemble names.

    Raises: RefusedError: no such card; a member whose name could mean something to a shell, or
        another folder.
    """
    check_exists(card)
    try:
        if card.stat().st_size > CARD_BYTES:
            raise ValueError(f"{card.stat().st_size:,} bytes")
        members = json.loads(card.read_bytes())["members"]
        if not isinstance(members, dict) or not members:
            raise ValueError("no members")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RefusedError(
            f"WEIGHTS={card}: no card of an ensemble ({type(error).__name__}: {error})"
        ) from error
    return [check_name(f"WEIGHTS={card}: member", name) for name in members]


def check_exists(path: Path) -> None:
    if not path.exists():
        beside = [
            str(other) for other in path.parent.glob("*") if other.is_dir() or other.suffix == CARD_SUFFIX
        ]
        raise RefusedError(f"WEIGHTS={path}: no such file or folder{nearest(str(path), beside)}")


def find_files(path: Path) -> list[Path]:
    """The file itself, or the files of a folder.

    Raises:
        RefusedError: there is none, or one whose name could mean something to a shell.
    """
    check_exists(path)
    if path.is_file():
        return [path]
    files = sorted(file for file in path.glob(f"*{SUFFIX}") if not file.name.startswith("."))
    if not files:
        raise RefusedError(f"WEIGHTS={path}: no {SUFFIX} in that folder")
    for file in files:
        check_name(f"WEIGHTS={path}: file", file.stem)
    return files


def find_member(card: Path, name: str) -> Path:
    """A member's weights: a folder beside the card, or the file of that name in the package."""
    folder, packaged = card.with_name(name), PACKAGED / f"{name}{SUFFIX}"
    return packaged if packaged.is_file() and not folder.is_dir() else folder


def write_shipped(book: Book, settings: Settings) -> None:
    """Maps of the test images by every network, their averages and the submission."""
    weights, name = Path(settings["WEIGHTS"]), run_name(settings["WEIGHTS"])
    folder = settings.path("RUNS", name)
    csv = settings.path("SUBMISSIONS", f"{name}{settings.test_suffix}.csv")
    is_card = weights.suffix == CARD_SUFFIX
    places = (
        {f"{folder}/{one}": find_member(weights, one) for one in read_members(weights)}
        if is_card
        else {folder: weights}
    )
    found = {place: find_files(path) for place, path in places.items()}
    test = settings.test_maps
    maps = {place: [f"{place}/{map_name(file)}/{test}" for file in files] for place, files in found.items()}
    states = {
        str(file): [file.stat().st_size, file.stat().st_mtime_ns] for files in found.values() for file in files
    }
    states |= {str(weights): [weights.stat().st_size, weights.stat().st_mtime_ns]} if is_card else {}
    every_map = [path for paths in maps.values() for path in paths]
    needs, after = book.record(f"{folder}/made_from.json", canonical(states), every_map)
    index, processed = f"{settings.processed}/index.csv", path_text(settings.processed)
    for place, files in found.items():
        for file, out in zip(files, maps[place], strict=True):
            book.add(
                [out],
                [*needs, index],
                "predict",
                f"--weights {shell_text(str(file))}{' --config $(weights)' if is_card else ''}",
                f"--processed {processed} --test {path_text(out)} --device $(device)",
                after=after,
            )
        average(book, index, maps[place], f"{place}/{test}", "test")
    if is_card:
        inputs = [f"{place}/{test}" for place in places]
        average(
            book,
            index,
            inputs,
            f"{folder}/{test}",
            "test",
            "--ensemble-weights $(weights)",
            needs=needs,
        )
    book.add(
        [csv],
        [f"{folder}/{test}"],
        "make_submission",
        f"--maps {path_text(folder)}/{test} --weights $(weights)",
        f"--processed {processed} --out {path_text(csv)}",
    )


def map_name(file: Path) -> str:
    """The folder of the maps of one file."""
    return run_name(file.name)
