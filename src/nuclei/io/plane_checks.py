"""Signs in the pixels of a plane that it is no plain picture of nuclei: the user is warned."""

import numpy as np

from nuclei.arrays import Pixels
from nuclei.io.picture import COLOURS

_SAMPLE = 2**18
"""Values of which whole rows are taken."""
_SIDE = 256
_FLAT = 0.95
"""Fraction of equal neighbours outside the background: noise makes those of pictures differ."""
_FEWEST = 50
_DARK, _CONTENT = 0.25, 0.15
"""Fractions of the brightest value: background of fluorescence at most, contrast of a used colour
at least."""
_SAME = 0.7
"""Correlation below which two colours show different things."""


def find_doubts(pixels: Pixels) -> tuple[str, ...]:
    """Warnings about a plane (H, W) or (H, W, 3): constant, a mask or label map, several stains."""
    rows = np.asarray(pixels[:: max(1, pixels.size // _SAMPLE)])
    if rows.size and (rows == rows.flat[0]).all() and bool((pixels == rows.flat[0]).all()):
        return (f"all pixels have the value {rows.flat[0]}",)
    if pixels.ndim == 2:
        text = "flat values as in a mask or label map; give the picture itself"
        return (text,) if _is_flat(rows) else ()
    colours = _separate_colours(pixels)
    if not colours:
        return ()
    named = " and ".join(filter(None, (", ".join(colours[:-1]), colours[-1])))
    remedy = f"CHANNEL={colours[-1]} takes one colour"
    return (f"{named} show different things and are read together; {remedy}",)


def _is_flat(rows: Pixels) -> bool:
    """Whether nearly all pixels off the most frequent value equal their right neighbour."""
    values, counts = np.unique(rows, return_counts=True)
    inside = rows != values[counts.argmax()]
    pairs = inside[:, 1:] & inside[:, :-1]
    count = int(np.count_nonzero(pairs))
    equal = int(np.count_nonzero(pairs & (rows[:, 1:] == rows[:, :-1])))
    return count >= _FEWEST and equal >= _FLAT * count


def _separate_colours(pixels: Pixels) -> list[str]:
    """Colours used in a dark picture if two of them show different things; else none."""
    step = max(1, min(pixels.shape[:2]) // _SIDE)
    sample = np.asarray(pixels[::step, ::step], np.float64).reshape(-1, 3)
    low, white = np.percentile(sample, (1, 99.9))
    brightest = sample.max(axis=1)
    if white <= low or np.median(brightest) - low > _DARK * (white - low):
        return []
    contrast = np.percentile(sample, 99, axis=0) - np.median(sample, axis=0)
    used = np.flatnonzero(contrast >= _CONTENT * (white - low))
    if len(used) < 2:
        return []
    lowest = np.corrcoef(sample[:, used].T).min()
    return [COLOURS[colour] for colour in used] if lowest < _SAME else []
