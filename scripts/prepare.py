"""Prepares the unpacked archive: images, label maps and index.csv, the table of all images."""

import argparse
import os
from pathlib import Path

from nuclei.cli import IMAGE_SOURCES, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raw", type=Path, required=True, help="folder with stage1_train/ ...")
    parser.add_argument(
        "--stage", choices=("stage1", "stage2"), default="stage1", help="stage2: stage2_test_final/ alone"
    )
    parser.add_argument("--out", type=Path, required=True, help="for images/, labels/, index.csv")
    parser.add_argument("--sources", type=Path, default=IMAGE_SOURCES, help=f"sources ({IMAGE_SOURCES.name})")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    args = parser.parse_args()

    from nuclei.data import prepare
    from nuclei.data.image_sources import read_corrections
    from nuclei.io import files
    from nuclei.io.locks import folder_lock
    from nuclei.io.parallel import open_pool
    from nuclei.progress import show_progress

    raw, out, subsets = args.raw, args.out, prepare.SUBSETS[args.stage]
    jobs = [(subset, image_id) for subset in subsets for image_id in prepare.find_images(raw, subset)]
    with folder_lock(out):
        (out / "index.csv").unlink(missing_ok=True)  # it comes back when all its files are written
        with open_pool(max(args.workers, 1), prepare.image_writer, raw, out) as write:
            prepared = list(show_progress(write(jobs), f"prepare  {out}", "images", len(jobs)))
        index = prepare.build_index(prepared, read_corrections(args.sources))
        removed = prepare.remove_unlisted_files(out, index)
        files.write_csv(out / "settled.csv", prepare.mask_conflicts(prepared))
        files.write_csv(out / "index.csv", index)
    print("\n".join(prepare.describe_images(prepared, index)))
    print(f"{len(index)} images in {out}, {removed} old files removed")


if __name__ == "__main__":
    raise SystemExit(run(main))
