"""Trains one fold: runs/<experiment>/fold_<k>/model.pt. After a kill, resumes from there."""

import argparse
import logging
from pathlib import Path

from nuclei.cli import EXTERNAL_SETS, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="configs/<experiment>.toml")
    parser.add_argument("--processed", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--splits", type=Path, required=True, help="data/splits.csv")
    parser.add_argument("--fold", required=True, help="held-out fold, or all: hold out none")
    parser.add_argument("--external", type=Path, help="folder of the sets in training.external")
    parser.add_argument("--out", type=Path, required=True, help="runs/<experiment>/fold_<k>")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="other experiments (default: runs)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    parser.add_argument("--devices", type=int, default=1, help="GPUs per machine (default: 1)")
    parser.add_argument("--nodes", type=int, default=1, help="machines (default: 1)")
    parser.add_argument("--workers", type=int, default=0, help="data loader processes (default: 0)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: all cores)")
    parser.add_argument("--compile", action="store_true", help="torch.compile before training")
    args = parser.parse_args()

    from nuclei.config_files import read_config
    from nuclei.data.external_download import known_sets
    from nuclei.data.external_sets import add_external
    from nuclei.data.prepared_images import Images
    from nuclei.data.splits import choose_training
    from nuclei.io.tables import read_splits
    from nuclei.progress import name_job

    config, images = read_config(args.config), Images(args.processed)
    training = config.training
    fold = choose_training(read_splits(args.splits), args.fold, training.images, training.seed)
    pool, fold = add_external(images, fold, args.external, training.external, known_sets(EXTERNAL_SETS))
    numbers = len(fold.training), len(fold.validation)
    job = name_job("train", config.name, args.fold)
    logging.info("%s: %d training images, %d held out, %d steps", job, *numbers, training.steps)

    import torch  # takes seconds, so after everything that can be wrong with the arguments

    from nuclei.devices import choose_device, resolve_precision
    from nuclei.training.distributed import explain_lost_processes, launch
    from nuclei.training.loop import fit

    if args.threads:
        torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    fabric = launch(device, args.devices, args.nodes, resolve_precision(training.precision, device))
    with explain_lost_processes():
        fit(fabric, config, pool, fold, args.out, args.runs, args.workers, args.compile)


if __name__ == "__main__":
    raise SystemExit(run(main))
