"""Counter-based random numbers: the same on every device, in any order and batch.

A 32-bit hash of the counters takes the place of a generator's state. Everything is integer
arithmetic until the last division, so a processor and a GPU draw the same numbers.
"""

from typing import TypeVar

import numpy as np
import torch

from nuclei.arrays import Float64Array, Int64Array

_MASK = 2**32 - 1
_MULTIPLIER = 0x45D9F3B
"""Below 2**31: a product with a 32-bit number fits int64. Source: Mueller, 32-bit hash (2012)."""


Numbers = TypeVar("Numbers", Int64Array, torch.Tensor)


def mix(values: Numbers) -> Numbers:
    """A hash of each number in 0..2**32 - 1 (int64), in the same range; a permutation of them."""
    for _ in range(2):
        values = ((values ^ (values >> 16)) * _MULTIPLIER) & _MASK
    return values ^ (values >> 16)


def seeds_of(*counters: int | Int64Array) -> Int64Array:
    """A seed in 0..2**32 - 1 for each combination of counters: seed, fold, epoch, positions."""
    seeds = np.zeros(np.broadcast_shapes(*(np.shape(each) for each in counters)), np.int64)
    for counter in counters:
        low = np.asarray(counter, np.int64)
        # the upper half counts as a counter of its own
        for part in (low & _MASK, (low >> 32) & _MASK):
            seeds = mix((seeds * 2 + 1 + mix(part)) & _MASK)
    return seeds


def draw_uniforms(seeds: Int64Array, count: int) -> Float64Array:
    """`count` numbers in (0, 1) for each seed, (N, count)."""
    columns = mix(np.arange(1, count + 1, dtype=np.int64))
    hashed = mix((seeds[:, None] + columns) & _MASK)
    return np.asarray((hashed + 0.5) / 2**32)


def draw_noise(seeds_B: torch.Tensor, shape: tuple[int, ...], stream: int) -> torch.Tensor:
    """Normally distributed numbers for each seed, (B, *shape) float32; streams differ.

    They are a sum of four uniform numbers, which has no tails beyond 3.5 deviations.
    """
    count = int(np.prod(shape))
    counters = torch.arange(count, device=seeds_B.device, dtype=torch.int64) + (stream << 28)
    hashed = mix((mix(counters) + seeds_B[:, None]) & _MASK)
    total = (hashed & 0xFF) + ((hashed >> 8) & 0xFF) + ((hashed >> 16) & 0xFF) + (hashed >> 24)
    deviation = (4 * (256**2 - 1) / 12) ** 0.5
    noise: torch.Tensor = (total.float() - 510) / deviation
    return noise.reshape(len(seeds_B), *shape)
