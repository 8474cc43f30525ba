"""Segments the nuclei of your own images: label maps, outlines, measurements, results page."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of images, or a file")
    parser.add_argument("--out", type=Path, required=True, help="results, with index.html")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch (all cores)")

    from nuclei.segmentation.options import add_options, run_segmentation

    add_options(parser)
    args = parser.parse_args()
    print(run_segmentation(args, args.threads))


if __name__ == "__main__":
    raise SystemExit(run(main))
