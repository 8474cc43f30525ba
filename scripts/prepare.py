"""Turns the unpacked archive into images, label maps and index.csv, the table of all images."""

import argparse
import os
from pathlib import Path

from nuclei.cli import run

SOURCES = Path(__file__).parents[1] / "configs" / "image_sources.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raw", type=Path, required=True, help="folder with stage1_train/ and stage1_test/")
    parser.add_argument("--out", type=Path, required=True, help="folder for images/, labels/ and index.csv")
    parser.add_argument("--sources", type=Path, default=SOURCES, help=f"corrected sources (default {SOURCES.name})")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    arguments = parser.parse_args()

    from concurrent.futures import ProcessPoolExecutor
    from itertools import repeat

    from tqdm import tqdm

    from nuclei.data import prepare
    from nuclei.data.image_sources import read_corrections
    from nuclei.io import files

    ids = {subset: prepare.find_images(arguments.raw, subset) for subset in prepare.SUBSETS}
    (arguments.out / "index.csv").unlink(missing_ok=True)  # until all its files are written anew
    subsets = [subset for subset in ids for _ in ids[subset]]
    order = [image_id for subset in ids for image_id in ids[subset]]
    with ProcessPoolExecutor(max(arguments.workers, 1)) as pool:
        jobs = pool.map(
            prepare.prepare_image, repeat(arguments.raw), repeat(arguments.out), subsets, order, chunksize=8
        )
        prepared = list(tqdm(jobs, desc="images", total=len(order), unit="image"))
    index = prepare.build_index(prepared, read_corrections(arguments.sources))
    stale = prepare.remove_stale(arguments.out, index)
    files.write_csv(arguments.out / "settled.csv", prepare.settled_table(prepared))
    files.write_csv(arguments.out / "index.csv", index)
    print("\n".join(prepare.summarise(prepared, index)))
    print(f"{len(index)} images in {arguments.out}, {stale} stale files removed")


if __name__ == "__main__":
    raise SystemExit(run(main))
