"""From pixels to label map: ours, Cellpose 3 and StarDist, each with its own network.

Weights of the others are not part of their packages. Their networks are initialised at random,
which takes the same time, and their post-processing gets what a good network would answer: the
flows, or the distances and probabilities, of the annotation. So the label maps of theirs are near
the annotation, and their scores say nothing.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from data import Data
from harness import Row, compare
from torch import nn

from nuclei.arrays import LabelMap, UInt8Array
from nuclei.inference.fast import make_fast
from nuclei.inference.weights import Weights, find_best, load_weights
from nuclei.io.picture import Picture
from nuclei.segmentation.exports import export_plane
from nuclei.segmentation.plane import segment_plane
from nuclei.segmentation.results import FOLDERS

SIDE, LARGE = 512, 1024
"""Sides of the image for the comparison with others, and for our own two modes with all files."""
RAYS = 32


def segment(data: Data) -> Iterator[Row]:
    best = load_weights(find_best(), torch.device("cpu"))
    fast = make_fast(best)
    image, truth = mosaic(data, SIDE)

    def check(one: LabelMap, other: LabelMap) -> str:
        assert one.shape == other.shape
        return f"size of the label map; {one.max()} nuclei in ours and {other.max()} in theirs"

    for peer, work, bar in (
        ("Cellpose 3, nuclei, diameter known", cellpose(image, truth), 5.0),
        ("StarDist 2D, its network in torch", stardist(image, truth), 1.0),
    ):
        name = f"segment {describe(truth)}, fast"
        yield compare(name, peer, lambda: segment_plane(image, fast)[0], work, check, bar, pairs=3)
    large, truth = mosaic(data, LARGE)
    with TemporaryDirectory() as folder:
        works = [
            with_files(large, weights, Path(folder) / str(number))
            for number, weights in enumerate((fast, best))
        ]
        name = f"segment {describe(truth)}, fast, with all files"
        yield compare(name, "`best`, with all files", *works, check, pairs=2)


def describe(truth: LabelMap) -> str:
    size = f"{mean_size(truth):.0f} pixels on average"
    return f"{len(truth)}x{len(truth)} pixels, {truth.max()} nuclei of {size}"


def mean_size(truth: LabelMap) -> float:
    """Mean diameter of the nuclei in pixels."""
    return float(np.mean(np.sqrt(4 / np.pi * np.bincount(truth.ravel())[1:])))


def with_files(image: UInt8Array, weights: Weights, out: Path) -> Callable[[], LabelMap]:
    """From the pixels to all files of a plane."""
    for name in FOLDERS:
        (out / name).mkdir(parents=True)

    def work() -> LabelMap:
        label_map, count = segment_plane(image, weights)
        export_plane(Picture("plane", image), label_map, count, out)
        return label_map

    return work


def mosaic(data: Data, side: int) -> tuple[UInt8Array, LabelMap]:
    """Images of the sample side by side, (side, side, 3), and their label map."""
    image = np.zeros((side, side, 3), np.uint8)
    label_map = np.zeros((side, side), np.int32)
    ids = [name for name in data.ids if min(data.images.image(name).shape[:2]) >= 256]
    corners = [(top, left) for top in range(0, side, 256) for left in range(0, side, 256)]
    for number, (top, left) in enumerate(corners):
        image_id, box = ids[number % len(ids)], np.s_[top : top + 256, left : left + 256]
        image[box] = data.images.image(image_id)[:256, :256]
        part = data.images.label_map(image_id)[:256, :256]
        label_map[box] = np.where(part > 0, part + label_map.max(), 0)
    _, numbers = np.unique(label_map, return_inverse=True)
    return image, numbers.reshape(label_map.shape).astype(np.int32)


def cellpose(image: UInt8Array, truth: LabelMap) -> Callable[[], LabelMap]:
    """Cellpose 3: its residual network on tiles, rescaled to its diameter, then its dynamics."""
    from cellpose import core, dynamics, resnet_torch

    torch.manual_seed(0)
    network = resnet_torch.CPnet([2, 32, 64, 128, 256], nout=3, sz=3, diam_mean=17.0).eval()
    scale = network.diam_mean.item() / mean_size(truth)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    size = round(SIDE * scale)
    small = cv2.resize(truth, (size, size), interpolation=cv2.INTER_NEAREST)
    flows = dynamics.labels_to_flows([small], device=torch.device("cpu"))[0]

    def work() -> LabelMap:
        low, high = np.percentile(grey, (1, 99))
        channels = np.stack([(grey - low) / max(high - low, 1), np.zeros_like(grey)], -1)
        with torch.inference_mode():
            core.run_net(network, channels[None], rsz=scale)
        masks = dynamics.resize_and_compute_masks(
            5 * flows[2:4], 12 * flows[1] - 6, niter=200, resize=[SIDE, SIDE], device=torch.device("cpu")
        )
        return np.asarray(masks[0] if isinstance(masks, tuple) else masks, np.int32)

    return work


class StarDistNetwork(nn.Module):
    """Network of `2D_versatile_fluo`: grid 2, UNet of depth 3, width 32, 128 features, 2 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolutions(1, 32), nn.MaxPool2d(2))
        widths = [32, 64, 128]
        self.down = nn.ModuleList(
            _convolutions(below, width) for below, width in zip([32, *widths], widths, strict=False)
        )
        self.middle = nn.Sequential(*_convolutions(128, 256)[:2], *_convolutions(256, 128)[:2])
        self.up = nn.ModuleList(
            nn.Sequential(*_convolutions(2 * width, width)[:2], *_convolutions(width, max(width // 2, 32))[:2])
            for width in reversed(widths)
        )
        self.features = nn.Sequential(nn.Conv2d(32, 128, 3, padding=1), nn.ReLU())
        self.heads = nn.Conv2d(128, 1 + RAYS, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        pixels, skips = self.stem(pixels), []
        for down in self.down:
            pixels = down(pixels)
            skips.append(pixels)
            pixels = nn.functional.max_pool2d(pixels, 2)
        pixels = self.middle(pixels)
        for up in self.up:
            larger = nn.functional.interpolate(pixels, scale_factor=2)
            pixels = up(torch.cat([larger, skips.pop()], 1))
        answer: torch.Tensor = self.heads(self.features(pixels))
        return answer


def _convolutions(below: int, width: int) -> nn.Sequential:
    """Two 3x3 convolutions with ReLU."""
    return nn.Sequential(
        nn.Conv2d(below, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
    )


def stardist(image: UInt8Array, truth: LabelMap) -> Callable[[], LabelMap]:
    """StarDist: the network, non-maximum suppression in C++, and its label map."""
    from stardist import edt_prob, non_maximum_suppression, polygons_to_label, star_dist

    torch.manual_seed(0)
    network: Any = StarDistNetwork().eval()
    network = network.to(memory_format=torch.channels_last)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    distances, probabilities = star_dist(truth, RAYS)[::2, ::2], edt_prob(truth)[::2, ::2]

    def work() -> LabelMap:
        low, high = np.percentile(grey, (1, 99.8))
        pixels = torch.from_numpy((grey - low) / max(high - low, 1)).float()[None, None]
        with torch.inference_mode():
            network(pixels.contiguous(memory_format=torch.channels_last))
        points, scores, chosen = non_maximum_suppression(distances, probabilities, grid=(2, 2), prob_thresh=0.5)
        return np.asarray(polygons_to_label(chosen, points, truth.shape, prob=scores), np.int32)

    return work
