"""Packages a trained network for bioimage.io: one zip with weights, code, test images and metadata.

Fiji, QuPath, napari, ilastik and others run such packages. Both formats inside, a state dict with
its code and ONNX, compute everything from the intensity window to the probability maps, as `onnx`
does. The watershed that makes instances of the maps is not part of the format; the package's README
describes it.
"""

import os
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nuclei.config import Config
from nuclei.errors import UserError
from nuclei.inference.predictor import Predictor
from nuclei.io.files import atomic_path, write_json, write_text
from nuclei.io.images import write_image
from nuclei.models.factory import OURS
from nuclei.models.weights_file import Card
from nuclei.publishing.onnx import (
    INPUT,
    LARGEST,
    OPSET,
    OUTPUT,
    TOLERANCE,
    ImageToMaps,
    smallest_side,
)
from nuclei.publishing.standalone_source import FUNCTION, join_sources
from nuclei.synthetic.images import make_image

CHANNEL_NAMES = ("foreground", "border", "core")
SIDES = (192, 256)
"""Height and width in pixels of the test image."""
CITED = (
    (
        "Caicedo et al. 2019, Nucleus segmentation across imaging experiments",
        "10.1038/s41592-019-0612-7",
    ),
    ("Ronneberger, Fischer, Brox 2015, U-Net", "10.1007/978-3-319-24574-4_28"),
)
TAGS = [
    "nuclei",
    "segmentation",
    "instance-segmentation",
    "unet",
    "pytorch",
    "2d",
    "fluorescence-light-microscopy",
]
TAGS += ["histology", "dsb2018"]
LIBRARIES = ("torchvision", "timm", "segmentation-models-pytorch")


def pack_network(predictor: Predictor, card: Card | None, onnx: Path, out: Path) -> None:
    """Writes the package `out` (.zip) of a network and its ONNX graph if bioimage.io's test passes.

    Without the `card` of shared weights, the package's README gives no score.

    Raises:
        UserError: bioimageio.core is not installed, or its test fails.
    """
    try:
        from bioimageio.spec import save_bioimageio_package
    except ImportError as error:
        raise UserError(f"{out}: not written ({error}); run: pip install --editable '.[publish]'") from error
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copyfile(onnx, folder / "network.onnx")
        description = describe(predictor, card, folder)
        with atomic_path(out) as temporary:
            # The library requires this suffix.
            ended = temporary.with_name(temporary.name + ".zip")
            try:
                save_bioimageio_package(description, output_path=ended)
                check_package(ended)
                ended.replace(temporary)
            finally:
                ended.unlink(missing_ok=True)


def check_package(path: Path) -> None:
    """Runs the checks of `bioimageio test`: both formats, test image, other sizes and batches.

    Raises:
        UserError: it fails.
    """
    from bioimageio.core import test_description

    _keep_quiet()
    summary = test_description(path)
    if summary.status != "passed":
        faults = [f"{detail.name}: {error.msg}" for detail in summary.details for error in detail.errors]
        raise UserError(
            f"{path}: bioimage.io's test says {summary.status}: {'; '.join(faults) or summary.name}"
        )


def describe(predictor: Predictor, card: Card | None, folder: Path) -> Any:
    """Metadata of the package (bioimageio.spec's ModelDescr); writes its files to `folder`.

    Raises:
        ValidationError: something violates the specification.
    """
    from bioimageio.spec.model import v0_5 as zoo

    config = predictor.config
    model: Any = predictor.model.float().cpu()
    network = ImageToMaps(model.to(memory_format=torch.contiguous_format), config)
    _write_files(network, config, card, folder)
    settings: Any = config.model_dump(mode="json")
    environment = zoo.FileDescr(source=folder / "environment.yaml")
    weights = zoo.WeightsDescr(
        pytorch_state_dict=zoo.PytorchStateDictWeightsDescr(
            source=folder / "network.pt",
            architecture=zoo.ArchitectureFromFileDescr(
                source=folder / "network.py",
                callable=zoo.Identifier(FUNCTION),
                kwargs={"config": settings},
            ),
            pytorch_version=zoo.Version(_version("torch")),
            dependencies=environment,
        ),
        onnx=zoo.OnnxWeightsDescr(
            source=folder / "network.onnx", opset_version=OPSET, parent="pytorch_state_dict"
        ),
    )
    return zoo.ModelDescr(
        name=f"Nuclei in microscope images ({config.name.replace('_', ' ')})",
        description="Maps of foreground, touching border and core of every nucleus, fluorescent or in tissue.",
        authors=[zoo.Author(name="The authors of this repository")],
        cite=[zoo.CiteEntry(text=text, doi=zoo.Doi(doi)) for text, doi in CITED],
        license=zoo.LicenseId("MIT"),
        tags=TAGS,
        covers=[zoo.FileDescr(source=folder / "cover.png")],
        documentation=zoo.FileDescr(source=folder / "README.md"),
        inputs=[_describe_input(zoo, config, smallest_side(predictor.model, config), folder)],
        outputs=[_describe_output(zoo, folder)],
        weights=weights,
        training_data=None,
    )


def _describe_input(zoo: Any, config: Config, smallest: int, folder: Path) -> Any:
    size = zoo.ParameterizedSize(min=smallest, step=1)
    own_units = config.intensity.window == "level"
    return zoo.InputTensorDescr(
        id=zoo.TensorId(INPUT),
        description="RGB; grey images three times" + ("" if own_units else "; 0..255, as in a file of 8 bits"),
        axes=[
            zoo.BatchAxis(),
            zoo.ChannelAxis(channel_names=[zoo.Identifier(name) for name in ("red", "green", "blue")]),
            *(zoo.SpaceInputAxis(id=zoo.AxisId(axis), size=size) for axis in "yx"),
        ],
        data=zoo.IntervalOrRatioDataDescr(type="float32", range=(None, None) if own_units else (0, 255)),
        test_tensor=zoo.FileDescr(source=folder / "test_input.npy"),
    )


def _describe_output(zoo: Any, folder: Path) -> Any:
    sides = {axis: zoo.SizeReference(tensor_id=zoo.TensorId(INPUT), axis_id=zoo.AxisId(axis)) for axis in "yx"}
    return zoo.OutputTensorDescr(
        id=zoo.TensorId(OUTPUT),
        description="foreground; border between touching nuclei; core, 1 in a nucleus's middle, 0 at its boundary",
        axes=[
            zoo.BatchAxis(),
            zoo.ChannelAxis(channel_names=[zoo.Identifier(name) for name in CHANNEL_NAMES]),
            *(zoo.SpaceOutputAxis(id=zoo.AxisId(axis), size=size) for axis, size in sides.items()),
        ],
        data=zoo.IntervalOrRatioDataDescr(type="float32", range=(0, 1)),
        test_tensor=zoo.FileDescr(source=folder / "test_output.npy"),
    )


def _write_files(network: ImageToMaps, config: Config, card: Card | None, folder: Path) -> None:
    torch.save(network.state_dict(), folder / "network.pt")
    write_text(folder / "network.py", join_sources())
    libraries = () if config.model.architecture in OURS else LIBRARIES
    write_json(folder / "environment.yaml", _list_dependencies(libraries))  # JSON is YAML
    image = make_image("small_fluorescence", 1, *SIDES)[0]
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32)
    with torch.inference_mode():
        maps = network(torch.from_numpy(pixels)).numpy()
    np.save(folder / "test_input.npy", pixels)
    np.save(folder / "test_output.npy", maps)
    # red: foreground, green: touching border, blue: core
    write_image(
        folder / "cover.png",
        np.hstack([image, np.round(maps[0].transpose(1, 2, 0) * 255).astype(np.uint8)]),
    )
    write_text(folder / "README.md", _write_page(config, card))


def _list_dependencies(libraries: tuple[str, ...]) -> dict[str, Any]:
    """A conda environment in which `network.py` runs."""
    packages = ["pydantic", *libraries]
    pinned = [f"{package}=={_version(package)}" for package in packages]
    conda = [
        f"python={sys.version_info.major}.{sys.version_info.minor}",
        f"pytorch=={_version('torch')}",
    ]
    return {
        "name": "nuclei",
        "channels": ["conda-forge", "nodefaults"],
        "dependencies": [*conda, f"numpy=={_version('numpy')}", "pip", {"pip": pinned}],
    }


def _version(package: str) -> str:
    """The installed version without its build tag, such as +cpu."""
    return metadata.version(package).partition("+")[0]


def _write_page(config: Config, card: Card | None) -> str:
    trained = score = tuned = ""
    if card is not None:
        held_out = "" if card.fold is None else f", all but fold {card.fold}"
        trained = f"\nTrained on {card.data}{held_out} ({len(card.trained_on)} images; {card.licence})."
        general = card.parameters.general.to_dict()
        values = ", ".join(f"{name} {value:g}" for name, value in general.items())
        tuned = f"\nParameters, tuned out of fold on maps with test-time augmentation: {values}."
        score = f"""
The experiment scores {card.score:.4f} out of fold on {card.images} images: mean average precision over
IoU 0.50 to 0.95, with test-time augmentation, which this package leaves out. Tiles of one slide are in
one fold."""
        if card.unseen is not None:
            score += f"""
On {card.unseen.images} images of sources that training never saw it scores {card.unseen.score:.4f} (95%:
{card.unseen.low:.3f} to {card.unseen.high:.3f}, by resampling sources)."""
    window = {
        "none": "taken as it is",
        "percentile": "stretched, so that its own low and high percentile become black and white",
        "level": "put into a fixed window of its own units",
    }[config.intensity.window]
    unit = "in the images' own units" if config.intensity.window == "level" else "0..255 as in a file of 8 bits"
    return f"""# Nuclei in microscope images: {config.name}

A network ({config.model.architecture}) for instance segmentation of nuclei in fluorescence images and
stained tissue, the task of the 2018 Data Science Bowl.{trained}

## Input and output

`{INPUT}` is RGB (grey images three times), float32, {unit}, of any size up to
{LARGEST} pixels a side. Each image is {window};
that, the normalisation and the padding are inside the network, so give it whole images, not tiles.
`{OUTPUT}` has the image's size and three channels, 0..1: foreground; the border between touching nuclei;
core, 1 in the middle of a nucleus and 0 at its boundary.

## From maps to nuclei

Core minus border above a threshold gives markers; a watershed floods the foreground from them.{tuned}

## Validation
{score}
On generated images the formats of the package agree to {TOLERANCE:g}.
Check the results on images of other microscopes and stains before you trust numbers from them.
"""


def _keep_quiet() -> None:
    from loguru import logger

    if not os.environ.get("NUCLEI_DEBUG"):
        logger.remove()
