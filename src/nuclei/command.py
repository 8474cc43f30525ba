"""The `nuclei` command of an installed package: segment, finetune, info, score, validate."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nuclei import __version__
from nuclei.cli import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code, 1 for an error that the user can repair."""
    parsed = make_parser().parse_args(arguments)
    return run(lambda: _print(parsed.act(parsed)))


def make_parser() -> argparse.ArgumentParser:
    """The parser; each command's function is in `act` and returns what is printed."""
    from nuclei.segmentation.options import add_options
    from nuclei.training.options import add_options as add_finetuning_options

    parser = argparse.ArgumentParser(prog="nuclei", description="Finds the nuclei in microscope images.")
    parser.add_argument("--version", action="version", version=f"nuclei {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    segment = commands.add_parser(
        "segment", help="the nuclei of your images, as files for Fiji, QuPath and napari"
    )
    segment.add_argument("images", type=Path, metavar="FOLDER", help="folder of pictures, or one file")
    segment.add_argument("out", type=Path, metavar="OUT", help="folder for the results; open OUT/index.html")
    segment.add_argument("--threads", type=int, default=None, help="threads of torch (default: all cores)")
    add_options(segment)
    segment.set_defaults(act=_segment)

    finetune = commands.add_parser("finetune", help="trains the network further on pictures that you corrected")
    finetune.add_argument(
        "folder", type=Path, metavar="FOLDER", help="folder with images/ and labels/, or results"
    )
    finetune.add_argument("out", type=Path, metavar="OUT", help="file of weights to write (.safetensors)")
    add_finetuning_options(finetune)
    finetune.set_defaults(act=_finetune)

    info = commands.add_parser("info", help="what a file of weights is, and what it was trained on")
    info.add_argument(
        "weights",
        metavar="WEIGHTS",
        nargs="?",
        help="file, folder or name (default: the best there is)",
    )
    info.set_defaults(act=_info)

    score = commands.add_parser("score", help="scores a submission with the competition's metric")
    score.add_argument("submission", type=Path, metavar="SUBMISSION", help="CSV: ImageId, EncodedPixels")
    score.add_argument("truth", type=Path, metavar="TRUTH", help="CSV: ImageId, EncodedPixels, Height, Width")
    score.add_argument("--usage", help="only the rows of the truth with this Usage, such as Private")
    score.add_argument("--out", type=Path, help="CSV to write: one row of scores for each image")
    score.set_defaults(act=_score)

    validate = commands.add_parser("validate", help="checks that the competition would accept a submission")
    validate.add_argument("submission", type=Path, metavar="SUBMISSION", help="CSV: ImageId, EncodedPixels")
    validate.add_argument("index", type=Path, metavar="INDEX", help="index.csv of the prepared images")
    validate.set_defaults(act=_validate)
    return parser


def _segment(parsed: argparse.Namespace) -> str:
    from nuclei.segmentation.options import run_segmentation

    return run_segmentation(parsed, parsed.threads)


def _finetune(parsed: argparse.Namespace) -> str:
    from nuclei.training.options import run_finetuning

    return run_finetuning(parsed)


def _info(parsed: argparse.Namespace) -> str:
    from nuclei.inference.named_weights import find_weights
    from nuclei.inference.weights import find_files
    from nuclei.models.weights_file import read_card

    path = find_weights(parsed.weights)
    lines = [f"{path}"]
    for file in find_files(path):
        card = read_card(file)
        fold = "" if card.fold is None else f", fold {card.fold}"
        score = (
            f"score {card.score:.4f} on {card.images} images not trained on" if card.images else "not scored"
        )
        lines.append(
            f"{file.name}: {card.name}{fold}, {file.stat().st_size / 1e6:.1f} MB; {score}; "
            f"trained on {len(card.trained_on)} images of {card.data} "
            f"({card.licence})"
        )
    return "\n".join(lines)


def _score(parsed: argparse.Namespace) -> str:
    import numpy as np

    from nuclei.evaluation.metric import THRESHOLDS
    from nuclei.evaluation.submission_score import score_submission, write_scores
    from nuclei.submission.solution import read_solution

    scores = score_submission(parsed.submission, read_solution(parsed.truth, parsed.usage))
    if parsed.out:
        write_scores(parsed.out, scores)
    means = np.mean(list(scores.values()), axis=0)
    lines = [f"IoU > {threshold:.2f}  {mean:.10f}" for threshold, mean in zip(THRESHOLDS, means, strict=True)]
    return "\n".join([*lines, f"mean of {len(scores)} images  {means.mean():.10f}"])


def _validate(parsed: argparse.Namespace) -> str:
    from nuclei.submission.submission import read_sizes, validate

    sizes = read_sizes(parsed.index)
    nuclei = validate(parsed.submission, sizes)
    return f"accepted: {parsed.submission}, {len(sizes)} images, {nuclei} nuclei"


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
