"""Modality of an image, found from the image alone."""

import cv2
import numpy as np

from nuclei.arrays import UInt8Array

MODALITIES = ("small_fluorescence", "large_fluorescence", "purple_tissue", "pink_purple_tissue", "grey_tissue")
ALL = "all"
"""Key, among modalities, of what holds for those without an entry of their own."""

COLOUR = 4.0
"""Mean difference of largest and smallest channel from which an image has colour (archive: 0, or >=
11)."""
PINK = 0.1
"""Fraction of pink pixels from which tissue is pink and purple (archive: <= 0.01, or >= 0.26)."""
LARGE = 0.095
"""Typical diameter of nuclei as a fraction of the image's side, from which they are large."""


def find_modality(image: UInt8Array) -> str:
    """One of MODALITIES; no masks are needed, so it works for test images too.

    Colour means tissue, pink and purple if many pixels are more red than blue. Bright grey means
    tissue, dark grey fluorescence, large or small by the diameter of the nuclei relative to the
    image's side.
    """
    red, green, blue = (image[..., channel].astype(np.int16) for channel in range(3))
    brightest = np.maximum(np.maximum(red, green), blue)
    if float((brightest - np.minimum(np.minimum(red, green), blue)).mean()) >= COLOUR:
        is_pink = (red > blue) & (red - green > 30)
        return "pink_purple_tissue" if float(is_pink.mean()) >= PINK else "purple_tissue"
    grey = brightest.astype(np.uint8)
    if np.median(grey) > 127:
        return "grey_tissue"
    relative = typical_diameter(grey) / np.sqrt(grey.size)
    return "large_fluorescence" if relative >= LARGE else "small_fluorescence"


def typical_diameter(grey: UInt8Array) -> float:
    """Equivalent diameter in pixels of the median bright object of an image (H, W); 0 if none.

    Objects are found by Otsu's threshold. Those below 30 pixels (specks) or above a twentieth of
    the image (glare, whole embryos) are ignored.
    """
    _, bright = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    _, _, statistics, _ = cv2.connectedComponentsWithStats(bright)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    areas = areas[(areas >= 30) & (areas <= grey.size / 20)]
    return float(2 * np.sqrt(np.median(areas) / np.pi)) if len(areas) else 0.0
