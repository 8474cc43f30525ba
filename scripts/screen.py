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
    args = parser.parse_args()

    from nuclei.data.prepared_images import Images
    from nuclei.io.files import write_text
    from nuclei.reporting.screening import (
        compare_runs,
        format_screening,
        open_segmenter,
        read_screened,
        screening_page,
    )

    images = Images(args.processed)
    screening = compare_runs(read_screened(args.own), read_screened(args.reference), images)
    print(format_screening(screening), flush=True)

    from nuclei.devices import choose_device

    device = choose_device(args.device)
    runs = (screening.own, screening.reference)
    segmenters = {one.experiment: open_segmenter(one, images, device) for one in runs}
    write_text(args.page, screening_page(screening, images, segmenters))
    print(f"\n{args.page}: these images with the errors of both, for a browser")


if __name__ == "__main__":
    raise SystemExit(run(main))
