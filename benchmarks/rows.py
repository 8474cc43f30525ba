"""The rows of RESULTS.md: what is held against what, and in what sense the answers are the same."""

import os
import pty
import re
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import peers
import torch
from data import Data
from harness import Row, compare, processor_seconds

from nuclei.config import Config, ModelConfig, PredictionConfig, TrainingConfig
from nuclei.config_files import read_config
from nuclei.data.dataset import Crops
from nuclei.data.intensity import normalise, window_image
from nuclei.devices import autocast_type
from nuclei.evaluation import tuning as tuning_module
from nuclei.evaluation.metric import average_precision
from nuclei.evaluation.score_cache import MapScorer
from nuclei.evaluation.tuning import cross_validate
from nuclei.inference.predictor import Predictor
from nuclei.inference.weights import load_trained, read_tuned
from nuclei.io.images import read_image
from nuclei.io.probability_maps import write_maps
from nuclei.models.factory import build_model
from nuclei.postprocessing.parameters import Parameters
from nuclei.postprocessing.watershed import segment_maps
from nuclei.submission.rle import decode_label_map, encode_label_map
from nuclei.training.losses import build_loss
from nuclei.training.optimizer import compile_network

CROP, BATCH, STEPS = 256, 4, 2
Pair = tuple[np.ndarray, np.ndarray]
"""Image and label map."""
ROOT = Path(__file__).parents[1]
CONFIGS, WEIGHTS = ROOT / "configs", ROOT / "weights/encoder_resunet/fold_0.safetensors"
BEGUN = r"\| [1-9]\d*/"
"""What a progress bar says once a first step is done."""
SIDE = 256
FIRST = f"""
from nuclei import segment
from nuclei.synthetic.images import make_image
print("found", segment(make_image("small_fluorescence", 0, {SIDE}, {SIDE})[0], device="cpu").max())
"""
"""The first label map of a new process."""


def metric(data: Data) -> Iterator[Row]:
    pairs = list(zip(data.truths(), data.predictions(), strict=True))

    def check(ours: list[np.ndarray], theirs: list[np.ndarray]) -> str:
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        return "values to 1e-6 (theirs asked for thresholds + 1e-6, as they count an equal IoU)"

    def ours() -> list[np.ndarray]:
        return [average_precision(*pair) for pair in pairs]

    for name, function, bar in (
        ("StarDist `matching`", peers.stardist_precision, 20.0),
        ("`cellpose.metrics.average_precision`", peers.cellpose_precision, 3.0),
    ):
        peer = _over(function, pairs)
        yield compare("metric at ten thresholds, an image", name, ours, peer, check, bar, items=len(pairs))


def run_lengths(data: Data) -> Iterator[Row]:
    from pycocotools import mask

    truths = data.truths()

    def ours() -> list[list[str]]:
        return [encode_label_map(truth) for truth in truths]

    def same_runs(one: list[list[str]], other: list[list[str]]) -> str:
        assert one == other
        return "strings"

    def same_masks(one: list[list[str]], other: list[Any]) -> str:
        for truth, rows, encoded in zip(truths, one, other, strict=True):
            numbers = np.arange(1, len(rows) + 1)
            decoded = (mask.decode(encoded) * numbers).sum(2)
            assert np.array_equal(decoded, decode_label_map(rows, *truth.shape))
        return "masks after decoding (theirs is COCO's compressed form)"

    name = "run lengths of a label map"
    notebook, coco = (
        _over(function, [(truth,) for truth in truths]) for function in (peers.notebook_runs, peers.coco_runs)
    )
    yield compare(
        name, "notebooks' loop over masks", ours, notebook, same_runs, 20.0, pairs=3, items=len(truths)
    )
    yield compare(name, "pycocotools `encode`", ours, coco, same_masks, 1.0, items=len(truths))


def postprocessing(data: Data) -> Iterator[Row]:
    small = [maps for maps in data.maps() if maps.shape[1:] == (256, 256)]
    maps = small or data.maps()
    name = "post-processing an image" + (" of 256x256" if small else "")
    parameters = Parameters()
    yield compare(
        name,
        "scikit-image, loops over regions",
        lambda: [segment_maps(one, parameters) for one in maps],
        lambda: [peers.segment_by_regions(one, parameters) for one in maps],
        same_nuclei,
        5.0,
        pairs=3,
        items=len(maps),
    )


def opening(data: Data) -> Iterator[Row]:
    def ours() -> list[np.ndarray]:
        return [data.images.label_map(image_id) for image_id in data.ids]

    def peer() -> list[np.ndarray]:
        return [peers.read_masks(data.folder(image_id)) for image_id in data.ids]

    name = "annotation of a training image, warm"
    yield compare(name, "every mask's PNG", ours, peer, _nearly_same_pixels, 20.0, items=len(data.ids))

    def both() -> list[Pair]:
        return [(data.images.image(image_id), data.images.label_map(image_id)) for image_id in data.ids]

    def peers_both() -> list[Pair]:
        folders = [data.folder(name) for name in data.ids]
        return [(peers.read_picture(folder), peers.read_masks(folder)) for folder in folders]

    def check(one: list[Pair], other: list[Pair]) -> str:
        for (ours, _), (theirs, _) in zip(one, other, strict=True):
            assert np.array_equal(ours, theirs)
        return "pixels of the images; annotation as above"

    name = "image and annotation of a training image, warm"
    yield compare(name, "the archive's PNGs", both, peers_both, check, items=len(data.ids))


def crops(data: Data) -> Iterator[Row]:
    config = config_of_rows()
    held = Crops(data.images, data.ids, config, 0)
    fresh = _DecodingCrops(data, config)

    def check(one: list[Any], other: list[Any]) -> str:
        assert all(torch.equal(a[0], b[0]) for a, b in zip(one, other, strict=True))
        return "pixels of the crops"

    count = 4 * BATCH
    yield compare(
        f"augmented crop of {CROP}x{CROP} with its target",
        "image and masks decoded from the archive for each",
        lambda: [held[place] for place in range(count)],
        lambda: [fresh[place] for place in range(count)],
        check,
        pairs=3,
        items=count,
    )


def training(data: Data, device: torch.device) -> Iterator[Row]:
    """Our training step and the usual one, same weights, same crops, loading in one process."""
    packed = read_config(CONFIGS / "resunet.toml")
    crop = "batch {0.training.batch_size}, crop {0.training.crop}, {1}"
    yield _compare_steps(
        "training step, resunet compiled, " + crop.format(packed, device.type), packed, data, device
    )
    plain = config_of_rows()
    name = "training step, UNet of width 16 not compiled, " + crop.format(plain, device.type)
    yield _compare_steps(name, plain, data, device, compiled=False)


def _compare_steps(name: str, config: Config, data: Data, device: torch.device, compiled: bool = True) -> Row:
    held, fresh = Crops(data.images, data.ids, config, 0), _DecodingCrops(data, config)
    ours = Trainer(config, held, device, autocast_type("auto", device), torch.channels_last, compiled)
    plain = Trainer(config, fresh, device, None, torch.contiguous_format)
    before = f"; compiled before, for {ours.warm_up():.0f} s" if compiled else ""

    def check(one: float, other: float) -> str:
        assert abs(one - other) < 0.02 * other, (one, other)
        return f"loss of the first steps to 2% ({one:.4f} and {other:.4f}){before}"

    against = "float32, contiguous, decoded from disk"
    return compare(name, against, ours, plain, check, 3.0, 2, _clock(device), STEPS)


def prediction(data: Data, device: torch.device) -> Iterator[Row]:
    """Eight flips of every thirteenth test image, 5 of 65, by one of the shipped networks."""
    ours, plain = (load_trained(WEIGHTS, device) for _ in range(2))
    config = ours.config.model_copy(update={"prediction": PredictionConfig(flips=8)})
    predictor = Predictor(ours.model, config, device, ours.autocast)
    plain.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    ids = sorted(data.images.ids("test"))[::13]
    pictures = [data.images.image(image_id) for image_id in ids]

    def peer() -> list[np.ndarray]:
        windows = (window_image(picture, config.intensity) for picture in pictures)
        inputs = (
            normalise(window, config.intensity.normalisation, config.model.in_channels) for window in windows
        )
        tensors = (torch.from_numpy(one).to(device) for one in inputs)
        return [peers.predict_plainly(plain.model, tensor, config) for tensor in tensors]

    def check(one: list[np.ndarray], other: list[np.ndarray]) -> str:
        pairs = zip(one, other, strict=True)
        apart = np.concatenate([np.abs(a.astype(int) - b).ravel() for a, b in pairs])
        tuned = read_tuned(WEIGHTS).general
        ours, theirs = ([segment_maps(maps, tuned) for maps in each] for each in (one, other))
        scores = [average_precision(*pair).mean() for pair in zip(theirs, ours, strict=True)]
        pixels = np.mean([np.mean((a > 0) == (b > 0)) for a, b in zip(ours, theirs, strict=True)])
        assert apart.mean() < 0.5, apart.mean()
        assert pixels > 0.998, pixels
        return (
            f"maps to {apart.mean():.2f}/255 on average ({apart.max()} at most); label maps: "
            f"{pixels:.5f} of the pixels in a nucleus or not, AP of ours by theirs "
            f"{np.mean(scores):.3f} over the ten thresholds"
        )

    name = f"prediction of a test image, eight flips, one encoder_resunet, {device.type}"
    mine = _over(predictor, [(picture,) for picture in pictures])
    yield compare(name, "float32, one flip at a time", mine, peer, check, 3.0, 3, _clock(device), len(ids))


def tuning(data: Data, scratch: Path) -> Iterator[Row]:
    """The search on the sample, against one that reads and segments anew for each candidate."""
    from nuclei.io.files import write_csv
    from nuclei.io.tables import read_splits

    table = read_splits(data.splits)
    write_csv(scratch / "splits.csv", table[table.image_id.isin(data.ids)])
    write_maps(scratch / "oof.npz", zip(data.ids, data.maps(), strict=True))
    paths = scratch / "oof.npz", data.processed, scratch / "splits.csv"

    def peer() -> Any:
        tuning_module.MapScorer = _PlainScorer  # type: ignore[misc]
        try:
            return cross_validate("search", *paths, 1)
        finally:
            tuning_module.MapScorer = MapScorer  # type: ignore[misc]

    def check(one: Any, other: Any) -> str:
        assert one == other
        return "parameters and scores"

    name = f"search for the post-processing, {len(data.ids)} images, two processes"
    yield compare(
        name,
        "one image and one candidate at a time",
        lambda: cross_validate("search", *paths, 2),
        peer,
        check,
        None,
        1,
        "wall",
    )


def start_up(root: Path, data: Data) -> list[dict[str, Any]]:
    """Seconds to the help of each script; of the heaviest also to first line and first work."""
    scripts, weights = root / "scripts", root / "weights/encoder_resunet"
    config, processed = root / "configs/encoder_unet.toml", ["--processed", data.processed]
    helps = [(f"`{path.name} --help`", [path, "--help"], ".", 0.3) for path in sorted(scripts.glob("*.py"))]
    with TemporaryDirectory() as folder:
        out, picture = Path(folder) / "x/fold_0", data.processed / "images" / f"{data.ids[0]}.png"
        splits = ["--splits", data.splits]
        train = ["train.py", "--config", config, *processed, *splits, "--fold", 0, "--out", out]
        small = [root / "configs/unet_small.toml" if part == config else part for part in train]
        segment = ["segment.py", "--images", picture, "--out", out]
        predict = [
            "predict.py",
            "--weights",
            next(weights.glob("*.safetensors")),
            *processed,
            "--test",
            out / "x.npz",
        ]
        index = ["--index", data.processed / "index.csv"]
        folds = ["make_folds.py", *index, "--out", out / "splits.csv"]
        runs = [
            (f"`{command[0]}` to its first line", command, ".", 3.0)
            for command in (train, predict, segment, folds)
        ]
        runs += [
            ("`train.py` (unet_small) to its first step", small, BEGUN, 4.0),
            ("`train.py` (encoder_unet) to its first step", train, BEGUN, 4.0),
            ("`predict.py` (encoder_unet) to its first image", predict, BEGUN, None),
            ("`segment.py`, one picture, to its last line", segment, r"\d nucle", None),
        ]
        runs = [(name, [scripts / first, *others], until, bar) for name, (first, *others), until, bar in runs]
        runs.append(
            (f"`nuclei.segment` of {SIDE} x {SIDE} pixels, imports included", ["-c", FIRST], "found", None)
        )
        measured = []
        for name, command, until, bar in [*helps, *runs]:
            seconds = []
            for _ in range(3):
                seconds.append(_seconds(command, until))
                shutil.rmtree(out, ignore_errors=True)
            measured.append({"name": name, "seconds": min(seconds), "bar": bar})
    return measured


def _seconds(command: list[Any], until: str) -> float:
    """Processor seconds, as other work may run beside it, until the command's output has a text."""
    begun = processor_seconds()
    said = ""
    terminal, end = pty.openpty()  # progress bars are drawn on a terminal alone
    termios.tcsetwinsize(end, (24, 100))  # and on one that has a size
    with subprocess.Popen([sys.executable, *map(str, command)], stdin=end, stdout=end, stderr=end) as process:
        os.close(end)
        while not re.search(until, said):
            try:
                said += os.read(terminal, 4096).decode(errors="replace")
            except OSError as error:  # no process has the terminal open any more
                raise ValueError(f"{command[0]} ended before it said {until!r}: {said[-500:]}") from error
        process.kill()
    os.close(terminal)
    return processor_seconds() - begun


class _DecodingCrops(Crops):
    """Our crops, but each image and its masks are read from the archive on demand."""

    def __init__(self, data: Data, config: Config) -> None:
        super().__init__(data.images, data.ids, config, 0)
        self.images = _Reader(data, "image", config)  # type: ignore[assignment]
        self.label_maps = _Reader(data, "masks", config)  # type: ignore[assignment]


class _Reader:
    def __init__(self, data: Data, what: str, config: Config) -> None:
        self.data, self.what, self.config = data, what, config

    def __getitem__(self, number: int) -> np.ndarray:
        folder = self.data.folder(self.data.ids[number])
        if self.what == "masks":
            return peers.read_masks(folder)
        path = next((folder / "images").glob("*.png"))
        return window_image(read_image(path), self.config.intensity)


class Trainer:
    """Called, it trains STEPS steps and returns their mean loss; it goes on where it stopped."""

    def __init__(
        self,
        config: Config,
        crops: Crops,
        device: torch.device,
        autocast: torch.dtype | None,
        layout: torch.memory_format,
        compiled: bool = False,
    ) -> None:
        torch.manual_seed(0)
        model = build_model(config.model, 3, pretrained=False).to(device)
        model = model.to(memory_format=layout)  # type: ignore[call-overload]
        rate, fused = config.training.learning_rate, layout is torch.channels_last
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=fused)
        self.model = compile_network(model, device) if compiled else model
        self.criterion = build_loss(config.loss, config.target)
        self.crops, self.batch, self.step = crops, config.training.batch_size, 0
        self.device, self.autocast, self.layout = device, autocast, layout

    def __call__(self) -> float:
        return self.train(STEPS)

    def warm_up(self) -> float:
        """Seconds until the first step has its gradients: nearly all of it is compilation."""
        begun = time.perf_counter()
        self._loss(0).backward()
        self.optimizer.zero_grad()
        return time.perf_counter() - begun

    def train(self, steps: int) -> float:
        losses = []
        for _ in range(steps):
            loss = self._loss(self.step)
            self.step += 1
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return float(np.mean(losses))

    def _loss(self, step: int) -> torch.Tensor:
        self.model.train()
        examples = [self.crops[step * self.batch + place] for place in range(self.batch)]
        pixels, target = (
            torch.stack([example[part] for example in examples]).to(self.device) for part in (0, 1)
        )
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            logits = self.model(pixels.contiguous(memory_format=self.layout))
        loss: torch.Tensor = self.criterion(logits, target)
        return loss


class _PlainScorer(MapScorer):
    """Scores of an image under candidates; each candidate reads and segments the image anew."""

    def __call__(self, job: tuple[str, Any]) -> Any:
        image_id, parameters = job
        if isinstance(parameters, Parameters):
            return super().__call__(job)
        scores = []
        for candidate in parameters:
            maps, truth = self._read_image(image_id)
            scores.append(average_precision(truth, segment_maps(maps, candidate)))
        return scores


def config_of_rows() -> Config:
    training = TrainingConfig(steps=10_000, steps_per_epoch=100, batch_size=BATCH, crop=CROP)
    return Config(name="benchmark", model=ModelConfig(width=16), training=training)


def _clock(device: torch.device) -> str:
    """What is timed: the processor's time tells nothing of a GPU's."""
    return "CPU" if device.type == "cpu" else "wall"


def _over(function: Callable[..., Any], jobs: list[tuple[Any, ...]]) -> Callable[[], list[Any]]:
    return lambda: [function(*job) for job in jobs]


def same_nuclei(one: list[np.ndarray], other: list[np.ndarray]) -> str:
    for ours, theirs in zip(one, other, strict=True):
        pairs = np.unique(np.stack([ours.ravel(), theirs.ravel()]), axis=1)
        assert len(pairs.T) == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))
    return "nuclei, pixel by pixel"


def _nearly_same_pixels(one: list[np.ndarray], other: list[np.ndarray]) -> str:
    share = np.mean([np.mean((a > 0) == (b > 0)) for a, b in zip(one, other, strict=True)])
    assert share > 0.999, share
    why = "overlaps and specks are fixed when the data is prepared"
    return f"{share:.5f} of the pixels in a nucleus or not ({why})"
