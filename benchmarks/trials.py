"""Libraries that promise speed, on the work that they could take over here; what loses is kept out of the project."""

import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import rows
import torch
from data import Data
from harness import Row, compare

from nuclei.dataset import Crops
from nuclei.inference import autocast_type
from nuclei.models import build_model
from nuclei.targets import rims

HEAD = """## Tried

The ratio is above 1 where what is in use (first) is faster than what was tried (second).
"""
NOTES = """\
Not kept: none wins enough to be a dependency. Counting shared pixels is a quarter of the metric's millisecond, and a
compiled forward pass is 4% faster. Not tried: OpenVINO, fastmorph. Not measured yet: the rows of prediction and of
the search, which `make bench ROWS='prediction tuning'` runs.
"""


def connected_components(data: Data) -> Iterator[Row]:
    import cc3d

    masks = [(truth > 0).astype(np.uint8) for truth in data.truths()]
    yield compare(
        "connected pieces of an image, OpenCV",
        "connected-components-3d",
        lambda: [cv2.connectedComponents(mask, connectivity=4)[1] for mask in masks],
        lambda: [cc3d.connected_components(mask, connectivity=4) for mask in masks],
        rows.same_nuclei,
        items=len(masks),
    )


def distances(data: Data) -> Iterator[Row]:
    import edt

    truths = data.truths()

    def ours() -> list[np.ndarray]:
        steps = [cv2.distanceTransform((~rims(truth)).astype(np.uint8), cv2.DIST_L2, 5) + 1 for truth in truths]
        return [np.where(truth > 0, step, 0) for truth, step in zip(truths, steps, strict=True)]

    def check(one: list[np.ndarray], other: list[np.ndarray]) -> str:
        furthest = max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))
        assert furthest < 1.5, furthest
        return f"distances to {furthest:.2f} pixels (ours approximates)"

    theirs = lambda: [edt.edt(truth.astype(np.uint32)) for truth in truths]  # noqa: E731
    yield compare("distances to the rim, OpenCV", "edt", ours, theirs, check, items=len(truths))


def overlaps(data: Data) -> Iterator[Row]:
    from stardist.matching import _label_overlap

    pairs = list(zip(data.truths(), data.predictions(), strict=True))

    def counted(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        shape = int(truth.max()) + 1, int(predicted.max()) + 1
        return np.bincount((truth * shape[1] + predicted).ravel(), minlength=shape[0] * shape[1]).reshape(shape)

    def check(one: list[np.ndarray], other: list[np.ndarray]) -> str:
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        return "counts"

    yield compare(
        "pixels in common, NumPy",
        "numba (compiled before)",
        lambda: [counted(*pair) for pair in pairs],
        lambda: [_label_overlap(*pair) for pair in pairs],
        check,
        items=len(pairs),
    )


def forward(data: Data) -> Iterator[Row]:
    """Four views of 256x256 through the UNet of width 16: eager bfloat16 against other ways to run it."""
    config = rows.config_of_rows()
    crops = Crops(data.images, data.ids, config, 0)
    torch.manual_seed(0)
    model = build_model(config.model, 3, pretrained=False).eval()
    pixels = torch.stack([crops[place][0] for place in range(4)])
    stored = _export(model, pixels)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    views, autocast = pixels.contiguous(memory_format=torch.channels_last), autocast_type("auto", torch.device("cpu"))

    @torch.inference_mode()
    def eager(network: Any) -> torch.Tensor:
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            return network(views).float()

    def check(one: Any, other: Any) -> str:
        furthest = float(np.abs(torch.sigmoid(one).numpy() - torch.sigmoid(torch.as_tensor(other)).numpy()).max())
        assert furthest < 0.05, furthest
        return f"probabilities to {furthest:.3f}"

    ours = lambda: eager(model)  # noqa: E731
    compiled = torch.compile(model)
    yield compare("four views through the UNet, eager", "torch.compile", ours, lambda: eager(compiled), check)
    yield compare("four views through the UNet, eager", "ONNX Runtime, float32", ours, stored, check)


def _export(model: torch.nn.Module, pixels: torch.Tensor) -> Any:
    import onnxruntime

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (pixels,), buffer, dynamo=False, input_names=["pixels"], output_names=["logits"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"pixels": pixels.numpy()})[0]


TRIALS: dict[str, Callable[[Data], Iterator[Row]]] = {
    "components": connected_components,
    "distances": distances,
    "overlaps": overlaps,
    "forward": forward,
}
"""What was tried, by the name under which `make bench ROWS=...` runs it."""
