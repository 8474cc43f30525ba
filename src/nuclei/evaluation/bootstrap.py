"""Confidence intervals by the bootstrap, and paired differences between experiments."""

from collections.abc import Mapping

import numpy as np

RESAMPLES = 2000
"""Bootstrap samples of images behind each interval."""


def bootstrap_interval(values: np.ndarray) -> tuple[float, float]:
    """Bounds between which 95% of the means of resampled values lie (percentile bootstrap, Efron 1979)."""
    generator = np.random.default_rng(0)
    means = values[generator.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def paired_difference(scores: Mapping[str, float], base: Mapping[str, float]) -> tuple[float, float, float]:
    """Mean over the images of `scores` of what they are above `base`, by id, with the bounds of its 95% interval."""
    differences = np.array([score - base[image_id] for image_id, score in scores.items()])
    return float(differences.mean()), *bootstrap_interval(differences)
