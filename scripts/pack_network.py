"""Packs one network to pass on, or the weight average of several from one start."""

import argparse
from pathlib import Path

from nuclei.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=Path, nargs="+", required=True, help="checkpoints or .safetensors")
    parser.add_argument("--weights", type=float, nargs="+", help="of each in the average (default: equal)")
    parser.add_argument("--config", type=Path, required=True, help="its [prediction] and its name count")
    parser.add_argument("--out", type=Path, required=True, help="the file, .safetensors")
    parser.add_argument("--score", type=float, required=True, help="on images of sources not trained on")
    parser.add_argument("--images", type=int, required=True, help="number of those images")
    parser.add_argument("--data", required=True, help="what it was trained on")
    parser.add_argument("--licence", required=True, help="of those data")
    arguments = parser.parse_args()

    from nuclei.config_files import parse_config, read_config

    config = read_config(arguments.config)

    from nuclei.evaluation.tuning import START
    from nuclei.models.weights_file import VERSION, Card, write_weights
    from nuclei.postprocessing.parameters import Tuned
    from nuclei.publishing.weight_average import average_tensors, read_network

    networks = [read_network(path) for path in arguments.networks]
    trained = parse_config(networks[0][0], str(arguments.networks[0]))
    packed = trained.model_copy(update={"name": config.name, "prediction": config.prediction})
    tensors = average_tensors([each[1] for each in networks], arguments.weights or [1.0] * len(networks))
    card = Card(
        version=VERSION,
        name=config.name,
        fold=None,
        config=packed.model_dump(mode="json"),
        parameters=Tuned(START, {}),  # what holds on sources that no training saw
        score=arguments.score,
        images=arguments.images,
        trained_on=sorted({image_id for each in networks for image_id in each[2]}),
        data=arguments.data,
        licence=arguments.licence,
    )
    size = write_weights(arguments.out, tensors, card)
    print(f"{arguments.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    raise SystemExit(run(main))
