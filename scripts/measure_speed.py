"""Measures the speed of training and prediction for the plan of `make train-all`."""

import argparse
import time
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    started = time.time()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="configs/<experiment>.toml")
    parser.add_argument("--processed", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--splits", type=Path, required=True, help="data/splits.csv")
    parser.add_argument("--fold", required=True, help="number of the held-out fold, or all")
    parser.add_argument("--external", type=Path, help="folder of the sets in training.external")
    parser.add_argument("--seconds", type=float, required=True, help="length of the measurement")
    parser.add_argument("--out", type=Path, required=True, help="output: the speeds, .json")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    parser.add_argument("--workers", type=int, default=0, help="data loader processes (default: 0)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--compile", action="store_true", help="torch.compile, as in training")
    args = parser.parse_args()

    from nuclei.config_files import read_config
    from nuclei.data.external_sets import add_external
    from nuclei.data.prepared_images import Images
    from nuclei.data.splits import choose_training
    from nuclei.io.tables import read_splits

    config, images = read_config(args.config), Images(args.processed)
    fold = choose_training(read_splits(args.splits), args.fold, None, 0)
    pool, fold = add_external(images, fold, args.external, config.training.external)

    import torch  # takes seconds, so after everything that can be wrong with the arguments

    from nuclei.devices import choose_device, resolve_precision
    from nuclei.io.files import write_json
    from nuclei.training.distributed import launch
    from nuclei.training.speed import measure_speed

    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    fabric = launch(device, 1, 1, resolve_precision(config.training.precision, device))
    speed = measure_speed(fabric, config, pool, fold, args.workers, args.seconds, started, args.compile)
    write_json(args.out, speed.model_dump(mode="json"))


if __name__ == "__main__":
    raise SystemExit(run(main))
