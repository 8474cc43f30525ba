"""Synthetic images of nuclei with exact label maps, in the competition's modalities.

Shapes are drawn first (`synthetic.shapes`), then light (`synthetic.optics`): fluorescence adds
light to black, tissue absorbs the lamp's light by the Beer-Lambert law. Equal seeds give equal
images.
"""

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import center_of_mass, gaussian_filter
from skimage.measure import label as connected_pieces

from nuclei.arrays import Float64Array, LabelMap, UInt8Array
from nuclei.errors import UserError
from nuclei.synthetic import optics
from nuclei.synthetic.optics import Random, Shape
from nuclei.synthetic.shapes import MIN_AREA, Crowd, Ellipse, Scene, place

SIZES: dict[str, Shape] = {
    "small_fluorescence": (256, 256),
    "large_fluorescence": (360, 360),
    "purple_tissue": (256, 320),
    "pink_purple_tissue": (256, 320),
    "grey_tissue": (384, 384),
}
"""Height and width of each modality's images in a set of samples."""
ODD_SIZE: Shape = (259, 161)
SCHEDULE: tuple[tuple[str, Shape], ...] = (
    ("small_fluorescence", SIZES["small_fluorescence"]),
    ("large_fluorescence", SIZES["large_fluorescence"]),
    ("purple_tissue", SIZES["purple_tissue"]),
    ("small_fluorescence", ODD_SIZE),
    ("grey_tissue", SIZES["grey_tissue"]),
    ("small_fluorescence", SIZES["small_fluorescence"]),
    ("pink_purple_tissue", SIZES["pink_purple_tissue"]),
    ("small_fluorescence", SIZES["small_fluorescence"]),
    ("large_fluorescence", SIZES["large_fluorescence"]),
    ("purple_tissue", SIZES["purple_tissue"]),
)
"""Modality and size of the images of a set that are not tiles, repeated."""
MOSAICS = ("small_fluorescence", "purple_tissue")
"""Modalities of the mosaics of a training set, in turn."""


@dataclass(frozen=True)
class Sample:
    """One image of a set under its id (64 hexadecimal digits), as the competition names them."""

    image_id: str
    modality: str
    image: UInt8Array
    label_map: LabelMap


def make_samples(subset: str, count: int, seed: int) -> Iterator[Sample]:
    """`count` samples for `subset` (train or test); 4 of 12 training images are mosaic tiles."""
    mosaics = count // 12 if subset == "train" else 0
    stream = int.from_bytes(hashlib.sha256(f"{subset} {seed}".encode()).digest()[:6], "big")
    made = 0
    for number in range(count - 3 * mosaics):
        if number < mosaics:
            modality = MOSAICS[number % len(MOSAICS)]
            tiles = make_mosaic(modality, stream + number, *SIZES[modality])
        else:
            modality, size = SCHEDULE[(number - mosaics) % len(SCHEDULE)]
            tiles = [make_image(modality, stream + number, *size)]
        for image, label_map in tiles:
            image_id = hashlib.sha256(f"synthetic {subset} {seed} {made}".encode()).hexdigest()
            yield Sample(image_id, modality, image, label_map)
            made += 1


def write_archive(path: Path, samples: Iterable[Sample], with_masks: bool) -> None:
    """Writes a zip in the competition's layout: RGBA images and, if wanted, masks (0, 255).

    The same samples give the same bytes.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for sample in sorted(samples, key=lambda sample: sample.image_id):
            image_id = sample.image_id
            picture = cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGRA)
            _add_png(archive, f"{image_id}/images/{image_id}.png", picture)
            labels = range(1, int(sample.label_map.max()) + 1) if with_masks else ()
            names = {hashlib.sha256(f"{image_id} {label}".encode()).hexdigest(): label for label in labels}
            for name, label in sorted(names.items()):
                mask = np.where(sample.label_map == label, 255, 0).astype(np.uint8)
                _add_png(archive, f"{image_id}/masks/{name}.png", mask)


def _add_png(archive: zipfile.ZipFile, name: str, pixels: npt.NDArray[Any]) -> None:
    # A fixed date; stored as it is, since a PNG is deflated already.
    _, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    archive.writestr(zipfile.ZipInfo(name, (2018, 4, 16, 0, 0, 0)), encoded.tobytes())


def make_mosaic(modality: str, seed: int, height: int, width: int) -> list[tuple[UInt8Array, LabelMap]]:
    """Four images (H, W, 3) with label maps, row by row, cut from one picture of twice the side."""
    image, label_map = make_image(modality, seed, 2 * height, 2 * width)
    tiles = []
    for row in (0, height):
        for column in (0, width):
            window = np.s_[row : row + height, column : column + width]
            tiles.append((image[window].copy(), _number_pieces(label_map[window])))
    return tiles


def make_image(modality: str, seed: int, height: int, width: int) -> tuple[UInt8Array, LabelMap]:
    """Image (H, W, 3) uint8 and label map (H, W) int32, a function of modality, seed and size.

    Raises:
        UserError: an unknown modality, or a side below 32 pixels.
    """
    if modality not in _LOOKS:
        raise UserError(f"modality {modality!r} is unknown; choose one of {', '.join(_LOOKS)}")
    if min(height, width) < 32:
        raise UserError(
            f"a picture of {height}x{width} pixels is too small for nuclei; both sides need 32 or more"
        )
    rng = np.random.default_rng([seed, list(_LOOKS).index(modality)])
    image, label_map = _LOOKS[modality](rng, (height, width))
    return image, _number_pieces(label_map)


def _number_pieces(label_map: LabelMap) -> LabelMap:
    """Connected pieces of nuclei labelled 1..N; pieces under MIN_AREA pixels are dropped."""
    pieces = np.asarray(connected_pieces(label_map, connectivity=1))
    kept = np.bincount(pieces.ravel()) >= MIN_AREA
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return np.asarray(numbers[pieces], dtype=np.int32)


def _small_fluorescence(rng: Random, shape: Shape) -> tuple[UInt8Array, LabelMap]:
    count, radius, elongation, touching = rng.uniform([12, 6.5, 0.2, 0.15], [60, 11, 0.9, 0.6])
    scene = place(rng, shape, Crowd(count, radius, 0.2, elongation, 0.09, touching))
    level, texture = rng.uniform([60, 0.08], [130, 0.35])
    return _fluorescence(rng, scene, level, 0.35, texture, 1.3, 0.15), scene.label_map


def _large_fluorescence(rng: Random, shape: Shape) -> tuple[UInt8Array, LabelMap]:
    count, radius = rng.uniform([7, 22], [12, 28])
    scene = place(rng, shape, Crowd(count, radius, 0.16, 1.0, 0.16, 0.5, 0.3))
    level, texture = rng.uniform([50, 0.06], [110, 0.16])
    return _fluorescence(rng, scene, level, 0.2, texture, 2.0, 0.08), scene.label_map


def _fluorescence(
    rng: Random,
    scene: Scene,
    level: float,
    spread: float,
    texture: float,
    grain: float,
    unfocused: float,
) -> UInt8Array:
    """Nuclei of about `level` grey levels among fainter cytoplasm, fibres, debris and ghosts."""
    shape = scene.label_map.shape
    dome = 0.5 + 0.5 * np.sqrt(np.clip(scene.depth / 5, 0, 1))
    clumps = 0.7 * optics.smooth_noise(rng, shape, grain) + 0.5 * optics.smooth_noise(rng, shape, 3 * grain)
    own = optics.vary(rng, scene.label_map, spread) * dome * np.clip(1 + texture * clumps, 0.3, 2.2)
    glow = optics.focus(rng, scene.label_map, own, unfocused)
    glow += rng.uniform(0.05, 0.25) * gaussian_filter(glow, 8)
    haze, threads, crumbs, ghosts = rng.uniform([0, 0, 0.8, 40], [0.06, 0.15, 1.8, 140])
    glow += np.clip(optics.smooth_noise(rng, shape, 25), 0, None) * (
        haze + threads * optics.fibres(rng, shape, 5)
    )
    glow += crumbs * optics.debris(rng, shape, int(rng.integers(0, 4)), 1.6)
    glow += ghosts * gaussian_filter((rng.random(shape) < 2e-5).astype(np.float64), 7)
    uneven = np.clip(1 + 0.2 * optics.smooth_noise(rng, shape, 120), 0.5, 1.6)
    dark, gain, read_noise = rng.uniform([4, 1.5, 0.6], [14, 6, 1.4])
    return optics.photograph(rng, dark + level * glow * uneven, gain, read_noise)


def _stain_chromatin(rng: Random, scene: Scene, texture: float, unfocused: float) -> Float64Array:
    """Concentration of a nuclear stain: dark rims, clumps within, pale and dark nuclei."""
    shape = scene.label_map.shape
    rim = 0.35 * np.exp(-scene.depth / 1.5)
    clumps = 0.6 * optics.smooth_noise(rng, shape, 1.1) + 0.6 * optics.smooth_noise(rng, shape, 2.6)
    stain = optics.vary(rng, scene.label_map, 0.33) * np.clip(0.8 + rim + texture * clumps, 0.15, 2.2)
    return optics.focus(rng, scene.label_map, stain, unfocused)


def _purple_tissue(rng: Random, shape: Shape) -> tuple[UInt8Array, LabelMap]:
    """Purple on white or purple on violet; round nuclei, or spindles along one direction."""
    on_white, spindles = rng.random(2) < (0.5, 0.4)
    count, radius, touching = rng.uniform([15, 7, 0.3], [55, 12, 0.7])
    elongation, aligned = (3.5, 0.85) if spindles else (1.0, 0.0)
    scene = place(rng, shape, Crowd(count, radius, 0.2, elongation, 0.12, touching, aligned))
    ghosts = rng.uniform(0, 0.8) * gaussian_filter(
        (optics.smooth_noise(rng, shape, 6) > 2.2).astype(np.float64), 4
    )
    stain = _stain_chromatin(rng, scene, 0.25, 0.2) + ghosts
    matrix = np.clip(0.5 + 0.6 * optics.smooth_noise(rng, shape, 25), 0, None)
    matrix *= 0.06 + 0.16 * optics.fibres(rng, shape, 4)
    ground = 0.1 + matrix + 0.02 * optics.smooth_noise(rng, shape, 1.5)
    if on_white:
        seen = optics.absorb((238, 238, 236), (stain, (0.75, 1.5, 0.45)), (ground, (0.5, 0.45, 0.6)))
    else:
        seen = optics.absorb((206, 190, 224), (stain, (0.85, 1.5, 0.22)), (ground, (0.9, 1.1, 0.5)))
    return optics.photograph(rng, seen, 8.0, 1.0), scene.label_map


def _pink_purple_tissue(rng: Random, shape: Shape) -> tuple[UInt8Array, LabelMap]:
    """Haematoxylin and eosin: purple nuclei in pink tissue with bright clefts and red blood."""
    count, radius = rng.uniform([14, 11], [26, 15])
    scene = place(rng, shape, Crowd(count, radius, 0.18, 0.9, 0.1, 0.25, 0.3))
    stain = _stain_chromatin(rng, scene, 0.35, 0.2)
    eosin = 0.6 + 0.15 * optics.smooth_noise(rng, shape, 30) + 0.1 * optics.smooth_noise(rng, shape, 2)
    clefts = np.exp(-6 * np.abs(optics.smooth_noise(rng, shape, 14)))
    eosin += 0.3 * optics.fibres(rng, shape, 4) - 0.4 * clefts
    vessels = np.clip(4 * (optics.smooth_noise(rng, shape, 45) - 1.2), 0, 1) * (scene.label_map == 0)
    blood = gaussian_filter(vessels, 1.5) * (0.9 + 0.12 * optics.smooth_noise(rng, shape, 4))
    eosin_colour, blood_colour = (0.18, 0.75, 0.28), (0.05, 1.3, 0.9)
    stains = (stain, (0.6, 0.8, 0.2)), (eosin, eosin_colour), (blood, blood_colour)
    return optics.photograph(rng, optics.absorb((240, 226, 240), *stains), 8.0, 1.0), scene.label_map


def _grey_tissue(rng: Random, shape: Shape) -> tuple[UInt8Array, LabelMap]:
    """A smear: each nucleus in a cell whose thin, folded body overlaps its neighbours'."""
    count, radius = rng.uniform([5, 8], [9, 10])
    scene = place(rng, shape, Crowd(count, radius, 0.15, 0.5, 0.08, 0.15))
    cytoplasm = np.zeros(shape)
    for centre in center_of_mass(scene.label_map > 0, scene.label_map, range(1, scene.label_map.max() + 1)):
        size, angle, thickness = rng.uniform([28, 0, 0.08], [48, np.pi, 0.28])
        row, column = centre + rng.normal(0, 8, 2)
        body = Scene.empty(shape)
        body.draw(rng, 1, Ellipse(row, column, 1.15 * size, size / 1.15, angle), 0.2, alone=False)
        cytoplasm += thickness * body.label_map * (1 + 0.7 * np.exp(-body.depth / 2.5))
    folds = optics.fibres(rng, shape, 7) * np.clip(optics.smooth_noise(rng, shape, 20), 0, 2)
    cytoplasm = gaussian_filter(cytoplasm, 1.0) * (1 + folds + 0.15 * optics.smooth_noise(rng, shape, 2))
    nuclei = 0.9 * _stain_chromatin(rng, scene, 0.18, 0.1)
    density = (
        cytoplasm * np.clip(1 - nuclei, 0.4, 1)
        + nuclei
        + optics.debris(rng, shape, int(rng.integers(1, 5)), 2.5)
    )
    lamp = 232 * (1 + 0.03 * optics.smooth_noise(rng, shape, 120))
    return optics.photograph(rng, lamp * np.exp(-density), 10.0, 0.8), scene.label_map


_LOOKS: dict[str, Callable[[Random, Shape], tuple[UInt8Array, LabelMap]]] = {
    "small_fluorescence": _small_fluorescence,
    "large_fluorescence": _large_fluorescence,
    "purple_tissue": _purple_tissue,
    "pink_purple_tissue": _pink_purple_tissue,
    "grey_tissue": _grey_tissue,
}
