"""Options of the commands that fine-tune on corrected pictures, checked before torch is loaded."""

import argparse
from pathlib import Path

from nuclei.training.settings import MINUTES, check_settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a fine-tuning but the folder and the file to write."""
    parser.add_argument(
        "--start", type=Path, help="weights to start from: file, folder or name (default: the packaged network)"
    )
    parser.add_argument("--minutes", default=str(MINUTES), help="time for training (default: 5)")
    parser.add_argument(
        "--channel", help="channel with the nuclei, from 1; red, green or blue of colour pictures"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch (default: all cores)")


def run_finetuning(arguments: argparse.Namespace) -> str:
    """Fine-tunes on `arguments.folder`, writes `arguments.out`, returns scores before and after.

    Raises:
        UserError: as in `finetune`.
    """
    from nuclei.errors import UserError
    from nuclei.inference.named_weights import find_weights
    from nuclei.io.picture import check_channel
    from nuclei.segmentation.corrections import find_entries

    try:
        minutes = float(arguments.minutes)
    except ValueError as error:
        raise UserError(f"MINUTES={arguments.minutes}: expected a number, such as 5") from error
    channel = check_channel(arguments.channel)
    find_weights(arguments.start)
    find_entries(arguments.folder)
    check_settings(arguments.out, minutes)

    import torch  # seconds, so not before what may be wrong with the arguments

    from nuclei.training.corrections import finetune

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return finetune(
        arguments.folder, arguments.out, arguments.start, minutes, channel, arguments.device
    ).describe()
