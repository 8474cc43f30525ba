"""Libraries that promise speed, tried in place of our code; what loses is not used."""

import io
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import rows
import torch
from data import Data
from harness import Row, compare

from nuclei.data.dataset import Crops
from nuclei.data.intensity import normalise, window_image
from nuclei.data.targets import rims
from nuclei.devices import autocast_type
from nuclei.evaluation.metric import _overlaps_of_maps
from nuclei.inference.fast import make_fast
from nuclei.inference.weights import find_best, load_weights
from nuclei.models.factory import build_model
from nuclei.submission.rle import _write, encode_label_map, parse_rows

HEAD = """## Tried

Above 1 the code in use (first) is faster than what was tried (second).
"""
NOTES = """\
None was kept: none gains enough to justify a dependency or more code.

- **OpenVINO in bfloat16** runs the network of mode fast clearly faster than torch (`fast_forward`): it fuses
  ReLU6, padding and instance normalisation into the passes around them. As an option of `nuclei segment` it
  made one megapixel slower, since converting the network and compiling graphs takes 1.75 processor seconds and
  saves 0.27 a megapixel (docs/performance.md). In float32 it and ONNX Runtime, which has no bfloat16 on a CPU, lose.
- **int8** (NNCF's post-training quantisation, calibrated on 24 generated images, run by OpenVINO) takes
  0.46 of torch's time in bfloat16 for 512 x 512 pixels, 0.056 and 0.121 s. The label maps of ten generated images
  have an AP of 0.851 by those of bfloat16, where OpenVINO in bfloat16 has 1.000 and in float32 0.990; by the
  annotation 0.715 instead of 0.740.
- **A compiled forward pass** of a UNet is a tenth faster, OpenVINO's in bfloat16 a sixth. Each needs a
  graph for every image size.
- **Folding batch normalisation** into the convolutions, and ReLU in them, would save 11% and 17% of
  a forward pass of `encoder_unet_long` (measured by leaving them out). 70% of it are convolutions,
  which bfloat16 instructions make twice as fast and no more: prediction stays below its target of 3
  on a CPU.
- **`CCL_SAUF`** saves a quarter of what is less than a third of the post-processing.
- **Deflated bytes without a PNG around them** are read several times faster, but no viewer opens
  such files, and half a millisecond an image is spent once a run.
- **PNG filter UP** would bring the prepared folder close to its limit of 64 MB.
- **fastmorph** fills holes of volumes only.
- **Start-up**: the rest of `train.py` is torch, its compiler (any optimiser of torch imports it),
  timm and the images.

An augmented crop of 256x256 takes 4.1 ms, or 241 a second on one core (300 crops, beside a run of
the tests): albumentations 47%, target 34%, cropping and resizing 16%, normalisation 3%.

On a GPU `make bench ROWS='device training prediction' DEVICE=cuda` measures images a second, the
fraction of the GPU's peak and the cost of the loader. It has been run on a CPU only. One H200 with
16 cores is known from training: ten networks at once (five `encoder_resunet`, five `resunet_wide`,
two loader processes each) took 155 crops of 256x256 a second each (`images_per_second` in their
`log.csv`), 1,550 in all or 97 a core, at a load of 25 to 33. The CPU that makes the crops was the
limit, not the GPU; the last networks, alone by then, took 285.
"""


def connected_components(data: Data) -> Iterator[Row]:
    import cc3d

    masks = [(truth > 0).astype(np.uint8) for truth in data.truths()]

    def chosen(mask: np.ndarray) -> np.ndarray:
        return cv2.connectedComponentsWithAlgorithm(mask, 4, cv2.CV_32S, cv2.CCL_SAUF)[1]

    for name, label in (
        ("connected-components-3d", lambda mask: cc3d.connected_components(mask, connectivity=4)),
        ("OpenCV's CCL_SAUF", chosen),
    ):
        yield compare(
            "connected components of an image, OpenCV",
            name,
            lambda: [cv2.connectedComponents(mask, connectivity=4)[1] for mask in masks],
            partial(_each, label, masks),
            rows.same_nuclei,
            items=len(masks),
        )


def distances(data: Data) -> Iterator[Row]:
    import edt

    truths = data.truths()

    def ours() -> list[np.ndarray]:
        insides = [(~rims(truth)).astype(np.uint8) for truth in truths]
        steps = [cv2.distanceTransform(inside, cv2.DIST_L2, 5) + 1 for inside in insides]
        return [np.where(truth > 0, step, 0) for truth, step in zip(truths, steps, strict=True)]

    def check(one: list[np.ndarray], other: list[np.ndarray]) -> str:
        furthest = max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))
        assert furthest < 1.5, furthest
        return f"distances to {furthest:.2f} pixels (ours approximates)"

    theirs = lambda: [edt.edt(truth.astype(np.uint32)) for truth in truths]  # noqa: E731
    yield compare("distance transform inside nuclei, OpenCV", "edt", ours, theirs, check, items=len(truths))


def overlaps(data: Data) -> Iterator[Row]:
    from stardist.matching import _label_overlap

    pairs = list(zip(data.truths(), data.predictions(), strict=True))

    def ours(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        found = _overlaps_of_maps(truth, predicted)
        table = np.zeros((len(found.true_areas), len(found.predicted_areas)), int)
        table[found.true_indices, found.predicted_indices] = found.intersections
        return table

    def pixel_by_pixel(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        shape = int(truth.max()) + 1, int(predicted.max()) + 1
        cells = (truth * shape[1] + predicted).ravel()
        return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)

    def check(one: list[np.ndarray], other: list[np.ndarray]) -> str:
        assert all(np.array_equal(a, b[1:, 1:]) for a, b in zip(one, other, strict=True))
        return "counts"

    for name, theirs in (
        ("numba, each pixel (compiled before)", _label_overlap),
        ("NumPy, each pixel", pixel_by_pixel),
    ):
        yield compare(
            "overlaps of two label maps, runs in NumPy",
            name,
            lambda: [ours(*pair) for pair in pairs],
            partial(_each, lambda pair, theirs=theirs: theirs(*pair), pairs),
            check,
            items=len(pairs),
        )


def decoding(data: Data) -> Iterator[Row]:
    """Label maps as PNG against plain deflated bytes; images with another PNG filter."""
    import imagecodecs

    truths = data.truths()
    packed = [
        (imagecodecs.zlibng_encode(truth.astype(np.uint16).tobytes(), 6), truth.shape) for truth in truths
    ]

    def unpack(item: tuple[bytes, tuple[int, int]]) -> np.ndarray:
        content, shape = item
        pixels = imagecodecs.zlibng_decode(content, out=2 * shape[0] * shape[1])
        return np.frombuffer(pixels, np.uint16).reshape(shape).astype(np.int32)

    yield compare(
        "label map, PNG by OpenCV",
        "bytes in memory, zlib-ng by imagecodecs",
        lambda: [data.images.label_map(image_id) for image_id in data.ids],
        partial(_each, unpack, packed),
        rows.same_nuclei,
        items=len(truths),
    )
    images = [data.images.image(image_id) for image_id in data.ids]
    grey = [image[..., 0] if (image == image[..., :1]).all() else image for image in images]
    filters = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    kept, filtered = (
        [cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 6, *flags])[1] for image in grey]
        for flags in ([], filters)
    )

    def check(one: list[np.ndarray], other: list[np.ndarray]) -> str:
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        ratio = sum(map(len, filtered)) / sum(map(len, kept))
        return f"pixels; theirs takes {ratio:.2f} of the bytes"

    yield compare(
        "image, PNG from memory, OpenCV's filters",
        "filter UP",
        lambda: [cv2.imdecode(png, cv2.IMREAD_COLOR) for png in kept],
        lambda: [cv2.imdecode(png, cv2.IMREAD_COLOR) for png in filtered],
        check,
        items=len(images),
    )


def digits(data: Data) -> Iterator[Row]:
    """Run lengths as text: all digits of all numbers at once, against Python's `str` of each."""
    runs = [parse_rows(encode_label_map(truth)) for truth in data.truths()]
    work = [(starts, lengths, np.flatnonzero(np.diff(rows, prepend=-1))) for starts, lengths, rows in runs]

    def by_str(starts: np.ndarray, lengths: np.ndarray, first_runs: np.ndarray) -> list[str]:
        numbers = list(map(str, np.stack([starts, lengths], axis=1).ravel().tolist()))
        return [
            " ".join(numbers[begin:end]) for begin, end in pairwise([*(2 * first_runs).tolist(), len(numbers)])
        ]

    def check(one: list[list[str]], other: list[list[str]]) -> str:
        assert one == other
        return "strings"

    yield compare(
        "run lengths as text, all digits at once",
        "`str` of each number",
        lambda: [_write(*part) for part in work],
        lambda: [by_str(*part) for part in work],
        check,
        items=len(work),
    )


def forward(data: Data) -> Iterator[Row]:
    """Four flips of 256x256 through the UNet of width 16: eager bfloat16 and other ways."""
    config = rows.config_of_rows()
    crops = Crops(data.images, data.ids, config, 0)
    torch.manual_seed(0)
    model = build_model(config.model, 3, pretrained=False).eval()
    pixels = torch.stack([crops[place][0] for place in range(4)])
    graph = _export(model, pixels)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    views, autocast = (
        pixels.contiguous(memory_format=torch.channels_last),
        autocast_type("auto", torch.device("cpu")),
    )

    @torch.inference_mode()
    def eager(network: Any) -> torch.Tensor:
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            return network(views).float()

    def check(one: Any, other: Any) -> str:
        furthest = float(
            np.abs(torch.sigmoid(one).numpy() - torch.sigmoid(torch.as_tensor(other)).numpy()).max()
        )
        assert furthest < 0.05, furthest
        return f"probabilities to {furthest:.3f}"

    ours = lambda: eager(model)  # noqa: E731
    compiled = torch.compile(model)
    for name, other in (
        ("torch.compile", lambda: eager(compiled)),
        ("ONNX Runtime, float32", _open_onnxruntime(graph, pixels)),
        ("OpenVINO, bfloat16", _open_openvino(graph, pixels, "bf16")),
        ("OpenVINO, float32", _open_openvino(graph, pixels, "f32")),
    ):
        yield compare("four flips through the UNet, eager", name, ours, other, check)


def fast_forward(data: Data) -> Iterator[Row]:
    """512x512 through the network of the package as `fast` runs it, against other runtimes."""
    weights = load_weights(find_best(), torch.device("cpu"))
    plain, fast = weights.predictors[0], make_fast(weights).predictors[0]
    image = data.images.image(max(data.ids, key=lambda name: min(data.images.image(name).shape[:2])))
    image = np.asarray(cv2.resize(image, (512, 512)))
    pixels = torch.from_numpy(normalise(window_image(image, plain.config.intensity), "half", 3))[None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            plain.model.float(),
            (pixels,),
            dynamo=True,
            input_names=["pixels"],
            output_names=["logits"],
            verbose=False,
        )
    graph = program.model_proto.SerializeToString()

    def check(one: Any, other: Any) -> str:
        apart = np.abs(one.numpy() - torch.sigmoid(torch.as_tensor(other)).numpy())
        assert apart.mean() < 0.01, apart.mean()
        return f"probabilities to {apart.mean():.4f} on average, {apart.max():.3f} at most"

    for name, other in (
        ("OpenVINO, bfloat16", _open_openvino(graph, pixels, "bf16")),
        ("OpenVINO, float32", _open_openvino(graph, pixels, "f32")),
        ("ONNX Runtime, float32", _open_onnxruntime(graph, pixels)),
    ):
        title = "512x512 pixels through the network of the package, mode fast"
        yield compare(title, name, lambda: fast.forward(pixels), other, check, pairs=5)


def _each(work: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    return [work(item) for item in items]


def _export(model: torch.nn.Module, pixels: torch.Tensor) -> bytes:
    """The network as ONNX, for images of this size."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (pixels,), buffer, dynamo=False, input_names=["pixels"], output_names=["logits"]
        )
    return buffer.getvalue()


def _open_onnxruntime(graph: bytes, pixels: torch.Tensor) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"pixels": pixels.numpy()})[0]


def _open_openvino(graph: bytes, pixels: torch.Tensor, precision: str) -> Callable[[], Any]:
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(graph), "CPU", options)
    return lambda: compiled([pixels.numpy()])[0]


TRIALS: dict[str, Callable[[Data], Iterator[Row]]] = {
    "components": connected_components,
    "distances": distances,
    "overlaps": overlaps,
    "decoding": decoding,
    "digits": digits,
    "forward": forward,
    "fast_forward": fast_forward,
}
"""What was tried, by the name under which `make bench ROWS=...` runs it."""
