"""Writes and checks the submission CSV: test maps, segmented as tuned in cv.json."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=Path, required=True, help="test maps, test.npz")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--cv", type=Path, help="cv.json with the tuned parameters")
    source.add_argument("--weights", type=Path, help="or the weights that made the maps")
    parser.add_argument("--processed", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--out", type=Path, required=True, help="the submission, .csv")
    args = parser.parse_args()

    from nuclei.data.prepared_images import Images
    from nuclei.evaluation.tuning import segment_test
    from nuclei.io.files import atomic_path
    from nuclei.progress import show_progress
    from nuclei.submission.submission import read_sizes, validate, write_submission

    if args.weights:
        from nuclei.inference.weights import read_tuned

        tuned = read_tuned(args.weights)
    else:
        from nuclei.evaluation.scores import read_tuned_score

        tuned = read_tuned_score(args.cv).tuned
    sizes = read_sizes(args.processed / "index.csv")
    images = Images(args.processed)
    modalities = {image_id: images.modality(image_id) for image_id in sizes}
    label_maps = show_progress(
        segment_test(args.maps, tuned, modalities), f"segment  {args.out}", "images", len(sizes)
    )
    with atomic_path(args.out) as checked:  # named only once the competition would accept it
        write_submission(checked, label_maps)
        nuclei = validate(checked, sizes)
    print(f"{args.out}: {nuclei} nuclei in {len(sizes)} images, valid")


if __name__ == "__main__":
    raise SystemExit(run(main))
