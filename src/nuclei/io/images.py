"""Image files and label maps of prepared data: PNG and TIFF."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclei.arrays import LabelMap, Pixels
from nuclei.errors import UserError
from nuclei.io.files import atomic_path


def read_image(path: Path | str) -> Pixels:
    """Image of a prepared file: RGB (H, W, 3) uint8 or uint16 of a PNG; of a TIFF what it holds, signed and float too.

    Raises:
        UserError: the file is missing or cannot be decoded.
    """
    if Path(path).suffix.lower() in (".tif", ".tiff"):
        return _read_tiff(path)
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None:
        raise UserError(f"{path}: no readable image there; run `make data` again to write it anew")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def _read_tiff(path: Path | str) -> Pixels:
    import tifffile

    try:
        image: Pixels = np.asarray(tifffile.imread(path))
    except (OSError, ValueError) as error:  # tifffile's own errors are ValueErrors
        raise UserError(f"{path}: no readable TIFF ({error}); write it anew") from error
    if not image.size:
        raise UserError(f"{path}: no readable TIFF (no pixels in it); write it anew")
    return image


def write_image(path: Path | str, image: Pixels) -> None:
    """Writes an RGB image (H, W, 3) uint8 or uint16 as PNG, with one channel where the three are equal."""
    import cv2

    grey = bool((image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all())
    _write_png(path, image[..., 0] if grey else image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 6])


def read_label_map(path: Path | str) -> LabelMap:
    """Label map (H, W) int32 of a 16-bit PNG: 0 background, 1..N nuclei.

    Raises:
        UserError: the file is missing or is no 16-bit grey PNG.
    """
    import cv2

    label_map = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if label_map is None or label_map.dtype != np.uint16 or label_map.ndim != 2:
        raise UserError(f"{path}: no 16-bit label map there; run `make data` again to write it anew")
    return label_map.astype(np.int32)


def write_label_map(path: Path | str, label_map: npt.NDArray[np.integer]) -> None:
    """Writes a label map as 16-bit PNG.

    Raises:
        UserError: more than 65,535 nuclei.
    """
    if label_map.size and int(label_map.max()) > np.iinfo(np.uint16).max:
        raise UserError(f"{path}: label {int(label_map.max())} does not fit 16 bits (at most 65,535 nuclei)")
    import cv2

    # Label maps are flat: unfiltered and searched less for repetitions they are read in less than half of the time, and
    # still take a tenth of what the images do. OpenCV before 4.12 leaves no choice of the filter.
    unfiltered = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE] if hasattr(cv2, "IMWRITE_PNG_FILTER") else []
    _write_png(path, label_map.astype(np.uint16), [cv2.IMWRITE_PNG_COMPRESSION, 3, *unfiltered])


def _write_png(path: Path | str, pixels: npt.NDArray[Any], flags: list[int]) -> None:
    import cv2

    done, encoded = cv2.imencode(".png", np.ascontiguousarray(pixels), flags)
    if not done:
        raise UserError(f"{path}: OpenCV cannot encode an array of shape {pixels.shape} and type {pixels.dtype}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.tobytes())
