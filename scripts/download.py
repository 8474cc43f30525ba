"""Downloads, checks and unpacks the competition's images to --out; the manifest comes last."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--source",
        default="bbbc",
        help="bbbc: Broad Bioimage Benchmark Collection, no account (default); "
        "kaggle: the competition, needs a token and its rules accepted; "
        "fixes: training images with the community's repaired masks, test images from bbbc; "
        "or a folder or http(s) address that holds the zips of the stage",
    )
    parser.add_argument(
        "--stage",
        choices=("stage1", "stage2"),
        default="stage1",
        help="stage1: stage1_train.zip and stage1_test.zip (default); stage2: stage2_test_final.zip, 290 MB",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder, e.g. data/raw")
    args = parser.parse_args()

    from nuclei.data.download import download

    download(args.source, args.out, args.stage)


if __name__ == "__main__":
    raise SystemExit(run(main))
