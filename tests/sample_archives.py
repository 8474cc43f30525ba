"""Small archives in the layout of the competition, made on the spot."""

import io
import random
import struct
import zipfile
import zlib
from pathlib import Path

Files = dict[str, bytes]


def make_png(seed: int, size: int = 24) -> bytes:
    """A grey PNG of noise, so that it does not compress."""
    rows = b"".join(b"\0" + random.Random(seed * size + row).randbytes(size) for row in range(size))
    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        png += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return png


def make_files(subset: str, images: int = 3, seed: int = 0) -> Files:
    """Files of a subset by their path in the archive; two masks an image in training."""
    files = {}
    for i in range(images):
        image_id = f"{subset[7:]}{i:02d}"
        files[f"{image_id}/images/{image_id}.png"] = make_png(seed + 10 * i)
        for j in range(2 if subset == "stage1_train" else 0):
            files[f"{image_id}/masks/m{j}.png"] = make_png(seed + 10 * i + 1 + j)
    return files


def make_zip(files: Files, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as target:
        for name, content in files.items():
            target.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def corrupt(content: bytes) -> bytes:
    """Another byte inside of the first picture's pixels: the size is right, the checksum is not."""
    return content[:300] + bytes([content[300] ^ 255]) + content[301:]


TRAIN, TEST = make_files("stage1_train"), make_files("stage1_test")
TRAIN_ZIP, TEST_ZIP = make_zip(TRAIN), make_zip(TEST)


def write_source(folder: Path, train: bytes = TRAIN_ZIP, test: bytes = TEST_ZIP) -> Path:
    """`folder` with both archives in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stage1_train.zip").write_bytes(train)
    (folder / "stage1_test.zip").write_bytes(test)
    return folder


def read_tree(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def assert_whole(raw: Path) -> None:
    """Both folders hold exactly the sample archives, a manifest says so, nothing is left over."""
    assert read_tree(raw / "stage1_train") == TRAIN
    assert read_tree(raw / "stage1_test") == TEST
    assert (raw / "manifest.csv").is_file()
    assert not [path for path in raw.iterdir() if path.name.startswith(".") or path.suffix in (".part", ".tmp")]
