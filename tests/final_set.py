"""A generated archive in the layout of the competition's final set, stage 2."""

import csv
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from sample_archives import make_zip

from nuclei.submission import rle
from nuclei.synthetic.images import make_image

KINDS = ("rgba", "rgb", "grey", "grey16", "rgb16", "grey_alpha")
"""How an image is stored; the real set mixes such files."""
SIZES = ((64, 48), (61, 77), (96, 33), (40, 40), (47, 64), (64, 64))
SCORED = 4
"""The first images are scored, the others ignored."""


def write_final_set(folder: Path) -> dict[str, tuple[int, int]]:
    """Writes stage2_test_final.zip and stage2_solution_final.csv; sizes of all images by id."""
    files, rows, sizes = {}, [], {}
    for number, (kind, (height, width)) in enumerate(zip(KINDS, SIZES, strict=True)):
        image, label_map = make_image("small_fluorescence", number, height, width)
        image_id = sha256(kind.encode()).hexdigest()
        files[f"{image_id}/images/{image_id}.png"] = encode(image, kind)
        sizes[image_id] = (height, width)
        usage = "Private" if number < SCORED else "Ignored"
        runs = rle.encode_label_map(label_map) if number < SCORED else ["1 1"]
        rows += [(image_id, each, height, width, usage) for each in runs or [""]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stage2_test_final.zip").write_bytes(make_zip(files))
    with open(folder / "stage2_solution_final.csv", "w", newline="") as file:
        csv.writer(file).writerows([("ImageId", "EncodedPixels", "Height", "Width", "Usage"), *rows])
    return sizes


def encode(image: npt.NDArray[np.uint8], kind: str) -> bytes:
    """PNG of a grey RGB image (H, W, 3): 8 or 16 bits, with or without colours and transparency."""
    grey: npt.NDArray[np.generic] = image[..., 0]
    if kind.endswith("16"):
        grey = grey.astype(np.uint16) * 16  # twelve of sixteen bits, as cameras write them
    pixels = np.repeat(grey[..., None], 3, axis=2) if kind.startswith("rgb") else grey
    if kind in ("rgba", "grey_alpha"):
        opaque = np.full(image.shape[:2], 255, np.uint8)
        colours = 3 if kind == "rgba" else 1
        return encode_alpha(np.dstack([image[..., :colours], opaque]))
    return cv2.imencode(".png", pixels)[1].tobytes()


def encode_alpha(pixels: npt.NDArray[np.uint8]) -> bytes:
    """PNG with transparency; OpenCV writes none of grey and transparency."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
