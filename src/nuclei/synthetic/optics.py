"""Image formation: random textures, absorbing stains, defocus and camera noise.

Fields are (H, W) float64; `shape` is (height, width) in pixels.
"""

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from nuclei.arrays import Float64Array, LabelMap, UInt8Array

Random = np.random.Generator
Shape = tuple[int, int]
Colour = tuple[float, float, float]


def smooth_noise(rng: Random, shape: Shape, sigma: float) -> Float64Array:
    """Smooth random field of mean 0 and standard deviation about 1, drawn on a coarser grid."""
    step = max(1, int(sigma / 2))
    coarse = gaussian_filter(
        rng.standard_normal([side // step + 8 for side in shape]), sigma / step, mode="wrap"
    )
    coarse /= coarse.std()
    if step == 1:
        return np.asarray(coarse[: shape[0], : shape[1]], dtype=np.float64)
    grid = np.meshgrid(*(np.arange(side) / step + 2 for side in shape), indexing="ij")
    return np.asarray(map_coordinates(coarse, grid, order=2), dtype=np.float64)


def fibres(rng: Random, shape: Shape, width: float) -> Float64Array:
    """Fibres from 0 to 1, about `width` pixels wide, that meander along one direction."""
    rows, columns = np.indices(shape)
    angle = rng.uniform(0, np.pi)
    across = rows * np.cos(angle) - columns * np.sin(angle) + 5 * width * smooth_noise(rng, shape, 10 * width)
    along = rows * np.sin(angle) + columns * np.cos(angle)
    lattice = gaussian_filter(rng.standard_normal((256, 256)), 1.0, mode="wrap")
    field = map_coordinates(
        lattice / lattice.std(), [across / width, along / (5 * width)], order=1, mode="grid-wrap"
    )
    return np.asarray(np.exp(-2 * np.abs(field)), dtype=np.float64)


def debris(rng: Random, shape: Shape, clumps: int, size: float) -> Float64Array:
    """Clumps of debris particles of `size` pixels, from 0 to 1; they have no label."""
    near = np.zeros(shape)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    for row, column in rng.uniform(0, shape, (clumps, 2)):
        near += np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * (2.2 * size) ** 2))
    crumbs = np.clip(3 * (smooth_noise(rng, shape, 0.8 * size) + 2 * near - 1.4), 0, 1) * (near > 0.1)
    return np.asarray(gaussian_filter(crumbs, 0.8), dtype=np.float64)


def vary(rng: Random, label_map: LabelMap, spread: float) -> Float64Array:
    """Random brightness factor of each nucleus, about 1, on its pixels; 0 in the background."""
    factors = np.exp(spread * rng.standard_normal(label_map.max() + 1))
    factors[0] = 0
    return np.asarray(factors[label_map], dtype=np.float64)


def focus(rng: Random, label_map: LabelMap, field: Float64Array, unfocused: float) -> Float64Array:
    """`field` blurred by the lens, a fraction `unfocused` of the nuclei more than the others."""
    sigma = rng.uniform(0.7, 1.2)
    away = (rng.random(label_map.max() + 1) < unfocused)[label_map]
    blurred = gaussian_filter(field * away, sigma * rng.uniform(2.0, 3.0))
    return np.asarray(gaussian_filter(field * ~away, sigma) + blurred, dtype=np.float64)


def photograph(rng: Random, light: Float64Array, gain: float, read_noise: float) -> UInt8Array:
    """RGB image (H, W, 3) uint8 of light (H, W) or (H, W, 3) in grey levels, with camera noise.

    Shot noise is that of `gain` photons per level, read noise is in levels.
    """
    light = np.maximum(light, 0)
    # Not rng.poisson: it draws more or less often depending on a value's last bit, which machines
    # round differently.
    noisy = light + np.sqrt(light / gain + read_noise**2) * rng.standard_normal(light.shape)
    image = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def absorb(lamp: Colour, *stains: tuple[Float64Array, Colour]) -> Float64Array:
    """Light (H, W, 3) of a lamp through stains: concentrations (H, W) and RGB absorption."""
    density = np.zeros((*stains[0][0].shape, 3))
    for concentration, colour in stains:
        density += np.maximum(concentration, 0)[..., None] * np.array(colour)
    return np.asarray(np.array(lamp) * np.exp(-density), dtype=np.float64)
