"""Scores out-of-fold maps with whole sources held out: runs/by_source/<experiment>/unseen.json."""

import argparse
import os
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=Path, required=True, help="out-of-fold maps, oof.npz")
    parser.add_argument("--cv", type=Path, required=True, help="cv.json tuned on these maps")
    parser.add_argument("--processed", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--splits", type=Path, required=True, help="data/splits_source.csv")
    parser.add_argument("--out", type=Path, required=True, help="runs/by_source/<name>/unseen.json")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (all cores)")
    args = parser.parse_args()

    from nuclei.evaluation.scores import format_scores_table
    from nuclei.evaluation.unseen import score_unseen
    from nuclei.io.files import write_json

    scores = score_unseen(args.maps, args.cv, args.processed, args.splits, args.workers)
    write_json(args.out, scores.model_dump(mode="json"))
    tuned = scores.tuned
    print(format_scores_table(scores))
    print(f"{scores.experiment}: score {scores.score:.4f} on {len(set(scores.source.values()))} unseen sources")
    print(
        f"tuned on other sources {tuned.score:.4f}, gain {tuned.gain:+.4f} ({tuned.low:+.4f} to "
        f"{tuned.high:+.4f})"
    )


if __name__ == "__main__":
    raise SystemExit(run(main))
