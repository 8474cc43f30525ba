"""Predicts maps of a fold's held-out images (oof.npz) and of the test images (test.npz), or of these alone."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, help="runs/<experiment>/fold_<k>/model.pt")
    source.add_argument("--weights", type=Path, help="a file of shared weights, .safetensors")
    parser.add_argument("--processed", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--splits", type=Path, help="data/splits.csv")
    parser.add_argument("--oof", type=Path, help="output: maps of the held-out images, .npz")
    parser.add_argument("--test", type=Path, help="output: maps of the test images, .npz; skipped where absent")
    parser.add_argument("--config", type=Path, help="use its [prediction] instead of the checkpoint's")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    parser.add_argument("--devices", type=int, default=1, help="processes or GPUs per machine (default: 1)")
    parser.add_argument("--nodes", type=int, default=1, help="machines (default: 1)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: all cores)")
    arguments = parser.parse_args()
    of_weights = arguments.test and not (arguments.config or arguments.oof or arguments.splits)
    of_checkpoint = arguments.splits if arguments.oof else arguments.test
    if not (of_checkpoint if arguments.checkpoint else of_weights):
        parser.error("--checkpoint needs --oof with --splits, or --test; --weights needs --test, no --config")

    from nuclei.config_files import read_config
    from nuclei.data.prepared_images import Images
    from nuclei.io.tables import read_splits

    images = Images(arguments.processed)
    jobs = [("test", images.ids("test"), arguments.test)] if arguments.test else []

    import torch  # takes seconds, so after everything that can be wrong with the arguments

    from nuclei.data.splits import held_out_images
    from nuclei.devices import choose_device
    from nuclei.inference.predictor import load_predictor
    from nuclei.inference.weights import load_trained
    from nuclei.models.checkpoint_file import load_checkpoint
    from nuclei.training.distributed import explain_lost_processes, launch, predict_in_parallel

    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    fabric = launch(choose_device(arguments.device), arguments.devices, arguments.nodes)
    if arguments.weights:
        predictor, fold = load_trained(arguments.weights, fabric.device), None
    else:
        checkpoint = load_checkpoint(arguments.checkpoint)
        fold = checkpoint["fold"]
        if arguments.oof:
            ids = held_out_images(checkpoint, arguments.checkpoint, read_splits(arguments.splits))
            jobs = [("held out", ids, arguments.oof), *jobs]
        asked = read_config(arguments.config) if arguments.config else None
        predictor = load_predictor(checkpoint, str(arguments.checkpoint), fabric.device, asked)
    with explain_lost_processes():
        for kind, ids, path in jobs:
            predict_in_parallel(fabric, predictor, images, ids, path, fold, kind)


if __name__ == "__main__":
    raise SystemExit(run(main))
