"""Segments the nuclei of your own images: label maps, outlines, measurements, results page."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures, or one file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results; index.html comes last")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch (default: all cores)")

    from nuclei.segmentation.options import add_options, run_segmentation

    add_options(parser)
    arguments = parser.parse_args()
    print(run_segmentation(arguments, arguments.threads))


if __name__ == "__main__":
    raise SystemExit(run(main))
