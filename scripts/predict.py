"""Predicts maps of a fold's held-out images (oof.npz) and of the test images (test.npz)."""

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
    parser.add_argument("--config", type=Path, help="its [prediction] instead; with --weights an ensemble's")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    parser.add_argument("--devices", type=int, default=1, help="processes or GPUs per machine (default: 1)")
    parser.add_argument("--nodes", type=int, default=1, help="machines (default: 1)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: all cores)")
    given = parser.parse_args()
    if not (given.splits if given.oof else given.test) or (given.weights and given.oof):
        parser.error("--checkpoint needs --oof with --splits, or --test; --weights needs --test")

    from nuclei.config_files import read_config
    from nuclei.data.prepared_images import Images
    from nuclei.io.tables import read_splits

    images = Images(given.processed)
    jobs = [("test", images.ids("test"), given.test)] if given.test else []

    import torch  # takes seconds, so after everything that can be wrong with the arguments

    from nuclei.data.splits import held_out_images
    from nuclei.devices import choose_device
    from nuclei.inference.predictor import load_predictor
    from nuclei.inference.weights import load_trained
    from nuclei.models.checkpoint_file import load_checkpoint
    from nuclei.training.distributed import explain_lost_processes, launch, predict_in_parallel

    torch.set_num_threads(given.threads or torch.get_num_threads())
    fabric = launch(choose_device(given.device), given.devices, given.nodes)
    if given.weights:
        predictor, fold = load_trained(given.weights, fabric.device, given.config), None
    else:
        checkpoint = load_checkpoint(given.checkpoint)
        if given.oof:
            held_out = held_out_images(checkpoint, given.checkpoint, read_splits(given.splits))
            jobs.insert(0, ("held out", held_out, given.oof))
        asked, fold = read_config(given.config) if given.config else None, checkpoint["fold"]
        predictor = load_predictor(checkpoint, str(given.checkpoint), fabric.device, asked)
    with explain_lost_processes():
        for kind, ids, path in jobs:
            predict_in_parallel(fabric, predictor, images, ids, path, fold, kind)


if __name__ == "__main__":
    raise SystemExit(run(main))
