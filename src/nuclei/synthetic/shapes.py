"""Shapes of synthetic nuclei: ellipses with wavy rims, isolated or touching."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclei.arrays import Float64Array, LabelMap

MIN_AREA = 16
"""Smaller nuclei, in pixels, are not drawn."""
CLEARANCE = 4
"""Background in pixels around an isolated nucleus."""
HIDDEN_SHARE = 0.15
"""Largest fraction of a nucleus that may be hidden by nuclei drawn earlier."""


@dataclass(frozen=True)
class Ellipse:
    """Centre, half axes in pixels and the direction of the longer one in radians."""

    row: float
    column: float
    long: float
    short: float
    angle: float

    def against(self, other: "Ellipse", bearing: float) -> "Ellipse":
        """The ellipse moved until it touches `other`, in the direction `bearing` from it."""
        distance = 0.97 * (self._reach(bearing) + other._reach(bearing))
        row, column = (
            other.row + distance * np.sin(bearing),
            other.column + distance * np.cos(bearing),
        )
        return replace(self, row=float(row), column=float(column))

    def _reach(self, bearing: float) -> float:
        turned = bearing - self.angle
        return float(1 / np.hypot(np.cos(turned) / self.long, np.sin(turned) / self.short))


@dataclass(frozen=True)
class Crowd:
    """Distribution of the nuclei of an image; lengths in pixels."""

    density: float
    """Nuclei wanted in 256x256 pixels; fewer come where there is no room."""
    radius: float
    radius_spread: float
    """Standard deviation of the radius's logarithm."""
    elongation: float
    """At most this much longer than wide: 0.5 allows 3:2."""
    bumps: float
    """Amplitude of the rim's waves as a fraction of the radius."""
    touching: float
    """Probability that a nucleus touches another one."""
    aligned: float = 0.0
    """0: random directions; 1: all along one direction."""


@dataclass
class Scene:
    """Positions of nuclei: `label_map` (H, W), and `depth` (H, W), distance to the rim."""

    label_map: LabelMap
    depth: Float64Array

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> "Scene":
        """Background only, (height, width) pixels."""
        return cls(np.zeros(shape, np.int32), np.zeros(shape))

    def draw(self, rng: np.random.Generator, label: int, ellipse: Ellipse, bumps: float, alone: bool) -> bool:
        """Draws `ellipse` with a wavy rim (random Fourier terms) if there is room; returns whether.

        Nuclei drawn earlier stay on top; `alone` demands background around it.
        """
        reach = int(1.6 * ellipse.long) + 3
        top, left = max(0, int(ellipse.row) - reach), max(0, int(ellipse.column) - reach)
        window = np.s_[top : max(0, int(ellipse.row) + reach), left : max(0, int(ellipse.column) + reach)]
        places = np.indices(self.label_map[window].shape) + np.array([top, left])[:, None, None]
        inwards = wavy_depth(rng, ellipse, places, bumps) * ellipse.short
        taken = self.label_map[window] > 0
        free = (inwards > 0) & ~taken
        crowded = alone and bool((taken & (inwards > -CLEARANCE)).any())
        if crowded or free.sum() < max(MIN_AREA, (1 - HIDDEN_SHARE) * (inwards > 0).sum()):
            return False
        self.label_map[window][free] = label
        self.depth[window][free] = inwards[free]
        return True


def wavy_depth(
    rng: np.random.Generator, ellipse: Ellipse, places: npt.NDArray[np.integer[Any]], bumps: float
) -> Float64Array:
    """1 at the centre, 0 on the wavy outline, negative outside: (H, W) at `places` (2, H, W)."""
    y, x = places[0] - ellipse.row, places[1] - ellipse.column
    along = (x * np.cos(ellipse.angle) + y * np.sin(ellipse.angle)) / ellipse.long
    across = (y * np.cos(ellipse.angle) - x * np.sin(ellipse.angle)) / ellipse.short
    theta = np.arctan2(across, along)
    radius = np.ones(theta.shape)
    for order in (2, 3, 4, 5):
        height = 1.5 * bumps * rng.normal() / order**1.5
        radius += height * np.cos(order * theta + rng.uniform(0, 2 * np.pi))
    return np.asarray(1 - np.hypot(along, across) / np.clip(radius, 0.6, 1.5), dtype=np.float64)


def place(rng: np.random.Generator, shape: tuple[int, int], crowd: Crowd) -> Scene:
    """Scene of (height, width) pixels with nuclei, each isolated or touching an earlier one."""
    scene = Scene.empty(shape)
    wanted = max(3, round(crowd.density * shape[0] * shape[1] / 65536))
    direction = rng.uniform(0, np.pi)
    placed: list[Ellipse] = []
    for _ in range(6 * wanted):
        if len(placed) == wanted:
            break
        radius = crowd.radius * np.exp(crowd.radius_spread * rng.standard_normal())
        stretch = np.sqrt(1 + crowd.elongation * rng.uniform(0.2, 1.0))
        angle = direction + (1 - crowd.aligned) * rng.uniform(-np.pi / 2, np.pi / 2)
        row, column = rng.uniform(0, shape)
        ellipse = Ellipse(row, column, radius * stretch, radius / stretch, angle)
        alone = not placed or rng.random() >= crowd.touching
        if not alone:
            ellipse = ellipse.against(placed[int(rng.integers(len(placed)))], rng.uniform(0, 2 * np.pi))
        if scene.draw(rng, len(placed) + 1, ellipse, crowd.bumps, alone):
            placed.append(ellipse)
    return scene
