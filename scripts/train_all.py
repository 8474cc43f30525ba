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
    parser.add_argument("--minutes", type=float, required=True, help="time for everything, from now on")
    parser.add_argument("--members", nargs="*", default=[], help="experiments to train fold by fold")
    parser.add_argument("--on-all-images", nargs="*", default=[], help="experiments to train on all images too")
    parser.add_argument("--folds", nargs="+", required=True, help="numbers of the held-out folds")
    parser.add_argument("--configs", type=Path, required=True, help="folder of the experiments' configs")
    parser.add_argument("--processed", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--splits", type=Path, required=True, help="data/splits.csv")
    parser.add_argument("--external", type=Path, help="folder of the sets that training.external names")
    parser.add_argument("--out", type=Path, required=True, help="folder of the plan and its runs")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    parser.add_argument("--at-once", type=int, default=0, help="trainings at the same time (default: chosen)")
    parser.add_argument("--compile", action="store_true", help="torch.compile: slow start, faster steps")
    arguments = parser.parse_args()

    from nuclei.errors import UserError

    if not arguments.minutes > 0 or not [*arguments.members, *arguments.on_all_images]:
        raise UserError("give --minutes above 0, and an experiment in --members or --on-all-images")

    from nuclei.training.budgeted_run import Places, Request, train_all
    from nuclei.training.task_queue import start_process

    request = Request(
        minutes=arguments.minutes,
        members=tuple(arguments.members),
        on_all_images=tuple(arguments.on_all_images),
        folds=tuple(arguments.folds),
        device=arguments.device,
        compiled=arguments.compile,
        at_once=arguments.at_once,
    )
    places = Places(
        arguments.configs, arguments.processed, arguments.splits, arguments.external, arguments.out,
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
