"""Exports trained networks to ONNX and torch.export, from raw pixels to probability maps.

Letters: B batch, C channels, H height, W width, N values of an image, L the 256 levels of a pixel.

Intensity window, normalisation and padding are inside the graph, so it takes an image as it is in a
file. Test-time augmentation and the watershed are not in it.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from nuclei.arrays import UInt8Array
from nuclei.config import Config, IntensityConfig
from nuclei.data.intensity import IMAGENET_DEVIATION, IMAGENET_MEAN, normalise, window_image
from nuclei.errors import UserError
from nuclei.io.files import atomic_path
from nuclei.models.activation import activate
from nuclei.synthetic.images import make_image

# its optimiser logs every constant that it merges
logging.getLogger("onnx_ir").setLevel(logging.WARNING)

INPUT, OUTPUT = "image", "maps"
OPSET = 18
TOLERANCE = 1e-4
"""Largest difference of a probability that `check` accepts."""
LARGEST = 8192
"""Largest height and width in pixels of the exported graph."""
Runner = Callable[[np.ndarray], np.ndarray]


class ImageToMaps(nn.Module):
    """Maps (B, 3, H, W), 0..1, of RGB images (B, 3, H, W), without test-time augmentation.

    The experiment's intensity window is included. With the window `level`, pixels are in the
    images' own units; otherwise they are 8-bit levels 0..255, rounded (convert 16-bit images
    before).
    """

    def __init__(self, model: nn.Module, config: Config) -> None:
        super().__init__()
        self.model, self.config = model.eval(), config
        self.register_buffer("mean_C11", torch.from_numpy(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer("deviation_C11", torch.from_numpy(IMAGENET_DEVIATION).view(3, 1, 1))

    mean_C11: Tensor  # noqa: N815
    deviation_C11: Tensor  # noqa: N815

    def forward(self, image_BCHW: Tensor) -> Tensor:
        intensity = self.config.intensity
        if intensity.window == "level":
            levels_BCHW = level_window(image_BCHW, intensity)
        else:
            levels_BCHW = image_BCHW.float().round().clamp(0, 255)
            if intensity.window == "percentile":
                levels_BCHW = stretch_levels(levels_BCHW, intensity)
        return activate(self.model(self._normalise(levels_BCHW)), self.config.target)

    def _normalise(self, levels_BCHW: Tensor) -> Tensor:
        """What `intensity.normalise` does."""
        values_BCHW = levels_BCHW / 255
        kind = self.config.intensity.normalisation
        if kind == "imagenet":
            values_BCHW = (values_BCHW - self.mean_C11) / self.deviation_C11
        elif kind == "half":
            values_BCHW = values_BCHW * 2 - 1
        if self.config.model.in_channels == 1:
            values_BCHW = values_BCHW.mean(1, keepdim=True)
        if kind == "z_score":
            # double precision: some runtimes sum a whole image one value after the other
            centred_BCHW = values_BCHW.double() - values_BCHW.double().mean((1, 2, 3), keepdim=True)
            deviation_B111 = centred_BCHW.square().mean((1, 2, 3), keepdim=True).sqrt()
            values_BCHW = (centred_BCHW / deviation_B111.clamp(min=1e-3)).float()
        return values_BCHW


def level_window(image_BCHW: Tensor, config: IntensityConfig) -> Tensor:
    """As `intensity.level_window`: pixels in own units to whole levels 0..255, float32."""
    assert config.window_level is not None  # the config refuses a window without them
    assert config.window_width is not None
    black = config.window_level - config.window_width / 2
    above_BCHW = image_BCHW.double() - _double(black, image_BCHW)
    return (above_BCHW * _double(255 / config.window_width, image_BCHW)).round().clamp(0, 255).float()


def stretch_levels(levels_BCHW: Tensor, config: IntensityConfig) -> Tensor:
    """`intensity.stretch` bit by bit: whole levels 0..255 to whole levels, same shape and dtype.

    A histogram and a lookup table need one pass over the image, where sorting would need many.
    Double precision, as there, rounds values halfway between two levels in the same way.
    """
    levels_BN = levels_BCHW.flatten(1).long()
    counts_BL = levels_BN.new_zeros(levels_BN.shape[0], 256).scatter_add(
        1, levels_BN, torch.ones_like(levels_BN)
    )
    below_BL = counts_BL.cumsum(1).double()
    total_B1 = below_BL[:, -1:]
    low, high = (_double(value / 100, total_B1) for value in (config.low_percentile, config.high_percentile))
    black_B1 = (below_BL <= low * total_B1).sum(1, keepdim=True)
    white_B1 = (below_BL < high * total_B1).sum(1, keepdim=True)
    level_L = torch.arange(256, dtype=torch.float64, device=levels_BN.device)
    span_B1 = (white_B1 - black_B1).clamp(min=1).double()
    # torch divides a number by a tensor through the tensor's reciprocal, which rounds once more
    gain_B1 = torch.full_like(span_B1, 255) / span_B1
    table_BL = ((level_L - black_B1) * gain_B1).round().clamp(0, 255)
    table_BL = torch.where(white_B1 > black_B1, table_BL, level_L)
    return table_BL.to(levels_BCHW.dtype).gather(1, levels_BN).view_as(levels_BCHW)


def _double(value: float, like: Tensor) -> Tensor:
    """A constant in double precision; the ONNX exporter rounds Python numbers to single."""
    return torch.tensor(value, dtype=torch.float64, device=like.device)


def export_checkpoint(model: nn.Module, config: Config, onnx: Path, program: Path) -> dict[Path, float]:
    """Writes both files, returns their largest difference; removes one that fails `check`.

    Raises:
        UserError: as in `trace`, `write_onnx` and `check`.
    """
    model = model.float().eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    traced = trace(model, config)
    write_onnx(onnx, traced, config)
    write_program(program, traced)
    differences = {}
    for path, load in ((onnx, load_onnx), (program, load_program)):
        try:
            differences[path] = check(load(path), model, config, str(path))
        except ValueError:
            path.unlink()
            raise
    return differences


def smallest_side(model: nn.Module, config: Config) -> int:
    """Smallest height and width in pixels that the exported network accepts."""
    if config.model.architecture == "transunet":  # two patches a side at the bottleneck
        return (config.model.packing << config.model.depth) * (config.model.transformer_patch + 1)
    return int(model.smallest)  # type: ignore[arg-type]


def trace(model: nn.Module, config: Config) -> ExportedProgram:
    """ONNX graph from images to maps, any batch, height and width in `smallest_side` to `LARGEST`.

    The auxiliary heads of deep supervision are left out, since prediction does not use them.

    Raises:
        UserError: a step of the architecture depends on the size in a way that cannot be exported.
    """
    smallest = smallest_side(model, config)
    # One side odd and one even at every level, so that the trace does not specialise on a parity.
    example = torch.zeros(2, 3, 2 * smallest + 1, 3 * smallest + 2)
    sizes = {
        2: Dim("height", min=smallest, max=LARGEST),
        3: Dim("width", min=smallest, max=LARGEST),
    }
    try:
        return torch.export.export(
            ImageToMaps(model, config),
            (example,),
            dynamic_shapes=({0: Dim("batch", min=1, max=1024), **sizes},),
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    except Exception as error:  # the tracer raises dozens of kinds
        raise UserError(
            f"{config.name}: {config.model.architecture} with encoder {config.model.encoder} "
            f"cannot be exported for images of any size: {str(error).strip().splitlines()[0]}. "
            "Our unet and transunet can"
        ) from error


def write_program(path: Path, program: ExportedProgram) -> None:
    """Writes the graph for `torch.export.load`."""
    with atomic_path(path) as temporary:
        # torch requires this suffix
        ended = temporary.with_name(temporary.name + ".pt2")
        torch.export.save(program, ended)
        ended.replace(temporary)


def write_onnx(path: Path, program: ExportedProgram, config: Config) -> None:
    """Writes the graph as ONNX, with the experiment's config as JSON in its metadata.

    Raises:
        UserError: the exporter's packages are not installed, or an operation is not in ONNX.
    """
    try:
        exported: Any = torch.onnx.export(
            program, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT], verbose=False
        )
    except ImportError as error:
        raise UserError(
            f"ONNX cannot be written ({error}); run: pip install --editable '.[publish]'"
        ) from error
    except Exception as error:
        raise UserError(f"{config.name}: cannot be expressed in ONNX: {error}") from error
    exported.model.metadata_props["experiment"] = config.model_dump_json()
    with atomic_path(path) as temporary:
        exported.save(str(temporary), external_data=False)


def load_onnx(path: Path) -> Runner:
    """A function from images (B, 3, H, W) float32 to maps (B, 3, H, W), ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run([OUTPUT], {INPUT: images})[0])


def load_program(path: Path) -> Runner:
    """As `load_onnx`, for a torch.export file and run by torch."""
    network = torch.export.load(path).module()
    return lambda images: network(torch.from_numpy(images)).detach().numpy()


def check(run: Runner, model: nn.Module, config: Config, source: str) -> float:
    """Largest difference between `run` and the network with its preprocessing, over odd sizes.

    Raises:
        UserError: it is above `TOLERANCE`; `source` names the exported file.
    """
    smallest = smallest_side(model, config)
    sizes = [(smallest, smallest), (2 * smallest + 3, smallest + 5), (161, 259), (256, 256)]
    worst = 0.0
    for number, (height, width) in enumerate((max(h, smallest), max(w, smallest)) for h, w in sizes):
        modality = ("small_fluorescence", "purple_tissue")[number % 2]
        image = make_image(modality, number, max(height, 32), max(width, 32))[0][:height, :width]
        answer = run(np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32))
        expected = predict_maps(model, config, image)
        if answer.shape != (1, *expected.shape):
            raise UserError(f"{source}: maps of shape {answer.shape}, expected {(1, *expected.shape)}")
        difference = float(np.abs(answer[0] - expected).max())
        if not difference <= TOLERANCE:  # also where it is not a number
            raise UserError(
                f"{source}: differs from the checkpoint by {difference:.2g} on an image of "
                f"{height}x{width} pixels, more than {TOLERANCE:g}; do not use it"
            )
        worst = max(worst, difference)
    return worst


@torch.inference_mode()
def predict_maps(model: nn.Module, config: Config, image: UInt8Array) -> np.ndarray:
    """Maps (3, H, W) float32 of an image (H, W, 3) uint8, with training's preprocessing, no TTA."""
    pixels = normalise(
        window_image(image, config.intensity),
        config.intensity.normalisation,
        config.model.in_channels,
    )
    return activate(model(torch.from_numpy(pixels)[None]), config.target)[0].numpy()
