"""Packs one network to pass on, or the weight average of several from one start."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=Path, nargs="+", required=True, help="files of weights")
    parser.add_argument("--weights", type=float, nargs="+", help="in the average (default: equal)")
    parser.add_argument("--config", type=Path, required=True, help="gives [prediction] and name")
    parser.add_argument("--out", type=Path, required=True, help="the file, .safetensors")
    parser.add_argument("--score", type=float, required=True, help="on unseen sources")
    parser.add_argument("--images", type=int, required=True, help="number of those images")
    parser.add_argument("--data", required=True, help="what it was trained on")
    parser.add_argument("--licence", required=True, help="of those data")
    args = parser.parse_args()

    from nuclei.config_files import parse_config, read_config

    config = read_config(args.config)

    from nuclei.evaluation.tuning import START
    from nuclei.models.weights_file import VERSION, Card, write_weights
    from nuclei.postprocessing.parameters import Tuned
    from nuclei.publishing.weight_average import average_tensors, read_network

    networks = [read_network(path) for path in args.networks]
    trained = parse_config(networks[0][0], str(args.networks[0]))
    packed = trained.model_copy(update={"name": config.name, "prediction": config.prediction})
    tensors = average_tensors([each[1] for each in networks], args.weights or [1.0] * len(networks))
    card = Card(
        version=VERSION,
        name=config.name,
        fold=None,
        config=packed.model_dump(mode="json"),
        parameters=Tuned(START, {}),  # what holds on sources that no training saw
        score=args.score,
        images=args.images,
        trained_on=sorted({image_id for each in networks for image_id in each[2]}),
        data=args.data,
        licence=args.licence,
    )
    size = write_weights(args.out, tensors, card)
    print(f"{args.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    raise SystemExit(run(main))
