"""Finds the nuclei of your own images: label maps, QuPath's GeoJSON, ImageJ's regions, measurements, overlays."""

import argparse
import logging
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of PNG, JPEG and TIFF files, or one file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results; summary.csv comes last")
    parser.add_argument("--weights", type=Path, help="file, folder or ensemble.json (default: the best of weights/)")
    parser.add_argument("--channel", type=int, help="of several channels the one with the nuclei, from 1")
    parser.add_argument("--pixel-size", type=float, help="micrometres a pixel (default: as the file says)")
    parser.add_argument("--max-pixels", type=int, help="of a plane; larger ones are refused from their header")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch (default: all cores)")
    arguments = parser.parse_args()

    from nuclei.inference.weights import find_best, find_files
    from nuclei.io.microscopy import MAX_PIXELS, find_pictures

    found, weights = find_pictures(arguments.images), arguments.weights or find_best()
    logging.info(
        "pictures: %d in %s; networks: %d in %s", len(found), arguments.images, len(find_files(weights)), weights
    )

    import torch  # seconds, so not before what may be wrong with the arguments

    from nuclei.segmentation.segment import segment_folder

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rows = segment_folder(
        arguments.images,
        arguments.out,
        weights,
        arguments.channel,
        arguments.pixel_size,
        arguments.device,
        arguments.max_pixels or MAX_PIXELS,
    )
    print(f"{arguments.out}: {sum(row['nuclei'] for row in rows)} nuclei in {len(rows)} images")


if __name__ == "__main__":
    raise SystemExit(run(main))
