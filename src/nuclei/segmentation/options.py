"""Options of the commands that segment a folder, checked before torch is loaded."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nuclei.segmentation.settings import Settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a segmentation but the folders."""
    parser.add_argument(
        "--weights", type=Path, help="file, folder or ensemble.json (default: the best there is)"
    )
    parser.add_argument(
        "--channel", help="channel with the nuclei, from 1; red, green or blue of colour pictures"
    )
    parser.add_argument("--pixel-size", help="micrometres a pixel (default: as the file says)")
    parser.add_argument(
        "--max-pixels", help="pixels of a plane at most; larger ones are refused from their header"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps or auto (default)")
    parser.add_argument(
        "--scale", default="1", help="enlarges the image for the network: 2 for nuclei of 4 pixels"
    )
    parser.add_argument(
        "--mode",
        default="fast",
        help="fast: one network, one scale (default); best: all networks, scales and flips of the weights",
    )
    # of earlier versions
    parser.add_argument("--fast", dest="mode", action="store_const", const="fast", help=argparse.SUPPRESS)
    parser.add_argument("--min-area", help="smallest nucleus: pixels (40) or square micrometres (20um2)")
    parser.add_argument("--max-area", help="largest nucleus, likewise")
    parser.add_argument("--keep-fibres", action="store_true", help="keep long thin objects, left out otherwise")


def run_segmentation(arguments: argparse.Namespace, threads: int | None = None) -> str:
    """Segments `arguments.images` into `arguments.out` and returns a line about the result.

    Raises:
        UserError: as in `segment_folder`.
    """
    settings = read_settings(arguments)

    from nuclei.inference.weights import find_best, find_files
    from nuclei.io.microscopy import find_pictures

    weights = arguments.weights or find_best()
    find_pictures(arguments.images)
    find_files(weights)

    import torch  # seconds, so not before what may be wrong with the arguments

    from nuclei.segmentation.segment import segment_folder

    if threads:
        torch.set_num_threads(threads)
    rows = segment_folder(
        arguments.images,
        arguments.out,
        weights,
        settings.channel,
        settings.pixel_size,
        settings.device,
        settings.max_pixels,
        settings.scale,
        min_area=settings.min_area,
        max_area=settings.max_area,
        keep_fibres=settings.keep_fibres,
        mode=settings.mode,
    )
    left_out = sum(row.left_out or 0 for row in rows)
    said = f", {left_out} objects left out by size or shape" if left_out else ""
    return f"{arguments.out}: {sum(row.nuclei or 0 for row in rows)} nuclei in {len(rows)} images{said}"


def read_settings(arguments: argparse.Namespace) -> "Settings":
    """The settings of parsed arguments.

    Raises:
        UserError: text that is no number where one is expected; an impossible value.
    """
    from nuclei.errors import UserError
    from nuclei.io.picture import MAX_PIXELS
    from nuclei.segmentation.settings import Settings, check_out

    check_out(arguments.out, arguments.images)
    numbers: dict[str, float | None] = {}
    for name in ("pixel_size", "max_pixels", "scale"):
        text = getattr(arguments, name)
        try:
            numbers[name] = None if text is None else float(text)
        except ValueError as error:
            raise UserError(f"{name.upper()}={text}: expected a number, such as 0.325") from error
    most = numbers["max_pixels"]
    if most is not None and most != most // 1:
        raise UserError(f"MAX_PIXELS={arguments.max_pixels}: expected a whole number")
    return Settings(
        arguments.channel,
        numbers["pixel_size"],
        arguments.device,
        MAX_PIXELS if most is None else int(most),
        numbers["scale"] or 0.0,
        arguments.mode,
        arguments.min_area,
        arguments.max_area,
        arguments.keep_fibres,
    )
