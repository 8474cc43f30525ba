"""Compares two measured runs, an idea and its reference: difference, verdict, page."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--own", type=Path, required=True, help="measured.json of the idea")
    parser.add_argument(
        "--reference", type=Path, required=True, help="measured.json of what it is compared with"
    )
    parser.add_argument("--processed", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--page", type=Path, required=True, help="the page with the images, .html")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    arguments = parser.parse_args()

    from nuclei.data.prepared_images import Images
    from nuclei.io.files import write_text
    from nuclei.reporting.screening import (
        compare_runs,
        format_screening,
        open_segmenter,
        read_screened,
        screening_page,
    )

    images = Images(arguments.processed)
    screening = compare_runs(read_screened(arguments.own), read_screened(arguments.reference), images)
    print(format_screening(screening), flush=True)

    from nuclei.devices import choose_device

    device = choose_device(arguments.device)
    runs = (screening.own, screening.reference)
    segmenters = {one.experiment: open_segmenter(one, images, device) for one in runs}
    write_text(arguments.page, screening_page(screening, images, segmenters))
    print(f"\n{arguments.page}: these images with the errors of both, for a browser")


if __name__ == "__main__":
    raise SystemExit(run(main))
