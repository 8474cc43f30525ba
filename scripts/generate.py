"""Writes synthetic archives: stage1_train.zip, stage1_test.zip and the solution of the test images.

Their layout is that of the real archives, so all later stages run on them unchanged.
"""

import argparse
from pathlib import Path

from nuclei.cli import run
from nuclei.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the two zips and stage1_solution.csv"
    )
    parser.add_argument("--train", type=int, default=40, help="training images (%(default)s)")
    parser.add_argument("--test", type=int, default=10, help="test images (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed gives other images (default: %(default)s)"
    )
    args = parser.parse_args()
    if min(args.train, args.test) < 1:
        raise UserError(f"--train {args.train} --test {args.test}: both need at least one image")

    import pandas

    from nuclei.io import files
    from nuclei.progress import show_progress
    from nuclei.submission import rle
    from nuclei.synthetic import images

    train = show_progress(
        images.make_samples("train", args.train, args.seed), "generate training", "images", args.train
    )
    with files.atomic_path(args.out / "stage1_train.zip") as temporary:
        images.write_archive(temporary, train, with_masks=True)

    test = list(
        show_progress(images.make_samples("test", args.test, args.seed), "generate test", "images", args.test)
    )
    with files.atomic_path(args.out / "stage1_test.zip") as temporary:
        images.write_archive(temporary, test, with_masks=False)

    rows = [
        (sample.image_id, runs, *sample.label_map.shape, "Private")
        for sample in sorted(test, key=lambda sample: sample.image_id)
        for runs in rle.encode_label_map(sample.label_map)
    ]
    solution = pandas.DataFrame(rows, columns=["ImageId", "EncodedPixels", "Height", "Width", "Usage"])
    files.write_csv(args.out / "stage1_solution.csv", solution)
    print(f"{args.out}: {args.train} training and {args.test} test images, {len(rows)} test nuclei")


if __name__ == "__main__":
    raise SystemExit(run(main))
