"""Packs an experiment's trained folds to pass on: half precision, config, post-processing."""

import argparse
import logging
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoints", type=Path, nargs="+", required=True, help="runs/<experiment>/fold_<k>/model.pt"
    )
    parser.add_argument(
        "--cv", type=Path, required=True, help="cv.json with the score and the tuned parameters"
    )
    parser.add_argument("--config", type=Path, help="its [prediction] replaces that of the checkpoints")
    parser.add_argument("--unseen", type=Path, help="unseen.json with the score on unseen sources")
    parser.add_argument("--out", type=Path, required=True, help="weights/<experiment>/README.md")
    parser.add_argument(
        "--data", default="BBBC038v1 (2018 Data Science Bowl, stage 1)", help="what it was trained on"
    )
    parser.add_argument("--licence", default="CC0-1.0", help="of those data (default: %(default)s)")
    args = parser.parse_args()

    from nuclei.evaluation.scores import read_tuned_score

    tuned = read_tuned_score(args.cv)
    logging.info("packing %d networks of %s", len(args.checkpoints), tuned.experiment)

    from nuclei.config_files import read_config
    from nuclei.evaluation.unseen import read_unseen
    from nuclei.models.checkpoint_file import load_checkpoint
    from nuclei.models.weights_file import SUFFIX, write_weights
    from nuclei.publishing.model_card import make_card, write_page

    unseen = read_unseen(args.unseen) if args.unseen else None
    changed = {}
    if args.config:
        changed = {"prediction": read_config(args.config).prediction.model_dump(mode="json")}
    cards, sizes, written = [], [], set()
    for path in args.checkpoints:
        checkpoint = load_checkpoint(path)
        checkpoint["config"] |= changed
        cards.append(make_card(checkpoint, tuned, args.data, args.licence, unseen))
        file = args.out.with_name(f"fold_{cards[-1].fold}{SUFFIX}")
        written.add(file)
        sizes.append(write_weights(file, checkpoint["model"], cards[-1]))
        print(f"{file}: {sizes[-1] / 1e6:.1f} MB")
    for stale in set(args.out.parent.glob(f"*{SUFFIX}")) - written:
        stale.unlink()  # of folds that no longer exist; all files of a folder are averaged
    write_page(args.out, cards, sizes)


if __name__ == "__main__":
    raise SystemExit(run(main))
