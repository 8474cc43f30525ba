"""Confidence intervals by the bootstrap, and paired differences between experiments.

Images of one source (laboratory, microscope, stain) are alike, so an interval that resamples images
is too narrow for images of a new source. Given their sources, the intervals resample whole sources.
Source: Efron (1979), percentile bootstrap; Davison and Hinkley (1997), section 3.8, for clusters.
"""

from collections.abc import Mapping, Sequence

import numpy as np

RESAMPLES = 2000
"""Bootstrap samples behind each interval."""


def bootstrap_interval(values: np.ndarray, sources: Sequence[str] | None = None) -> tuple[float, float]:
    """Bounds that hold 95% of the means of resampled values (N,).

    `sources` names the source of each value; then sources are drawn instead of single values, and
    the mean is over all values of the drawn sources.
    """
    low, high = np.quantile(resample_means(values, sources), [0.025, 0.975])
    return float(low), float(high)


def resample_means(values: np.ndarray, sources: Sequence[str] | None = None) -> np.ndarray:
    """Means of RESAMPLES bootstrap samples of values (N,); their spread is the mean's error."""
    numbers = np.arange(len(values))
    if sources is not None:
        _, numbers = np.unique(list(sources), return_inverse=True)
    sums, counts = np.bincount(numbers, values), np.bincount(numbers)
    drawn = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    means: np.ndarray = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


def paired_difference(
    scores: Mapping[str, float],
    base: Mapping[str, float],
    sources: Mapping[str, str] | None = None,
) -> tuple[float, float, float]:
    """Mean over the images of `scores` of their difference to `base`, by id, with its 95% interval.

    `sources` gives the source of each image by id; then the interval resamples sources.
    """
    differences = np.array([score - base[image_id] for image_id, score in scores.items()])
    named = None if sources is None else [sources[image_id] for image_id in scores]
    return float(differences.mean()), *bootstrap_interval(differences, named)
