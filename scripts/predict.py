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
    parser.add_argument("--test", type=Path, help="output: maps of the test images, .npz")
    parser.add_argument("--config", type=Path, help="whose [prediction] to use")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    parser.add_argument("--devices", type=int, default=1, help="GPUs per machine (default: 1)")
    parser.add_argument("--nodes", type=int, default=1, help="machines (default: 1)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: all cores)")
    args = parser.parse_args()
    if not (args.splits if args.oof else args.test) or (args.weights and args.oof):
        parser.error("--checkpoint needs --oof with --splits, or --test; --weights needs --test")

    from nuclei.config_files import read_config
    from nuclei.data.prepared_images import Images
    from nuclei.io.tables import read_splits

    images = Images(args.processed)
    jobs = [("test", images.ids("test"), args.test)] if args.test else []

    import torch  # takes seconds, so after everything that can be wrong with the arguments

    from nuclei.data.splits import held_out_images
    from nuclei.devices import choose_device
    from nuclei.inference.predictor import load_predictor
    from nuclei.inference.weights import load_trained
    from nuclei.models.checkpoint_file import load_checkpoint
    from nuclei.training.distributed import explain_lost_processes, launch, predict_in_parallel

    torch.set_num_threads(args.threads or torch.get_num_threads())
    fabric = launch(choose_device(args.device), args.devices, args.nodes)
    if args.weights:
        predictor, fold = load_trained(args.weights, fabric.device, args.config), None
    else:
        checkpoint = load_checkpoint(args.checkpoint)
        if args.oof:
            held_out = held_out_images(checkpoint, args.checkpoint, read_splits(args.splits))
            jobs.insert(0, ("held out", held_out, args.oof))
        asked, fold = read_config(args.config) if args.config else None, checkpoint["fold"]
        predictor = load_predictor(checkpoint, str(args.checkpoint), fabric.device, asked)
    with explain_lost_processes():
        for kind, ids, path in jobs:
            predict_in_parallel(fabric, predictor, images, ids, path, fold, kind)


if __name__ == "__main__":
    raise SystemExit(run(main))
