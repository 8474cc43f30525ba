"""Trains and scores members and networks on all images within given minutes; goes on later."""

import argparse
import os
import time
from functools import partial
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, required=True, help="for everything, from now on")
    parser.add_argument("--members", nargs="*", default=[], help="trained fold by fold")
    parser.add_argument("--on-all-images", nargs="*", default=[], help="trained on all images too")
    parser.add_argument("--folds", nargs="+", required=True, help="numbers of the held-out folds")
    parser.add_argument("--configs", type=Path, required=True, help="folder of the configs")
    parser.add_argument("--processed", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--splits", type=Path, required=True, help="data/splits.csv")
    parser.add_argument("--external", type=Path, help="folder of the sets in training.external")
    parser.add_argument("--out", type=Path, required=True, help="folder of the plan and its runs")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    parser.add_argument("--at-once", type=int, default=0, help="trainings at once (default: chosen)")
    parser.add_argument("--compile", action="store_true", help="torch.compile before training")
    args = parser.parse_args()

    from nuclei.errors import UserError

    if not args.minutes > 0 or not [*args.members, *args.on_all_images]:
        raise UserError("give --minutes above 0, and an experiment in --members or --on-all-images")

    from nuclei.training.budgeted_run import Places, Request, train_all
    from nuclei.training.task_queue import start_process

    request = Request(
        minutes=args.minutes,
        members=tuple(args.members),
        on_all_images=tuple(args.on_all_images),
        folds=tuple(args.folds),
        device=args.device,
        compiled=args.compile,
        at_once=args.at_once,
    )
    places = Places(
        args.configs, args.processed, args.splits, args.external, args.out,
        Path(__file__).parent,
    )  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    summary = train_all(request, places, begun, partial(start_process, environment=environment))
    print(f"{summary.trained} of {summary.trainings} trainings finished; {summary.text}")
    print(summary.table.to_string(index=False))
    if summary.unfinished:
        raise UserError(f"not finished: {', '.join(summary.unfinished)}; the same command goes on")


if __name__ == "__main__":
    raise SystemExit(run(main))
