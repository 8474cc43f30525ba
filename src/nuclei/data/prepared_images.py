"""The prepared images and label maps that `make data` writes, by image id."""

from pathlib import Path
from typing import Any, Protocol

from nuclei.arrays import LabelMap, Pixels
from nuclei.errors import UserError
from nuclei.io.images import read_image, read_label_map
from nuclei.io.tables import INDEX_COLUMNS, read_table


class AnnotatedImages(Protocol):
    """Images with label maps by id, and each image's modality: all that training crops need."""

    def image(self, image_id: str) -> Pixels:
        """(H, W) or (H, W, 3) of any type of numbers."""

    def label_map(self, image_id: str) -> LabelMap: ...

    def modality(self, image_id: str) -> str: ...

    def source(self, image_id: str) -> str: ...


class Images:
    """The prepared images and label maps of a folder by image id; `index` is its table."""

    def __init__(self, processed: Path | str) -> None:
        self.folder = Path(processed)
        self.index = read_table(self.folder / "index.csv", INDEX_COLUMNS, "run `make data`")
        # a dictionary: looking up a row in pandas takes a tenth of a millisecond
        self._rows: dict[str, dict[str, Any]] = {row["image_id"]: row for row in self.index.to_dict("records")}

    def ids(self, subset: str) -> list[str]:
        """Image ids of `train` or `test` in the order of the index."""
        return list(self.index.image_id[self.index.subset == subset])

    def image(self, image_id: str) -> Pixels:
        """Image of a file, see `read_image`; (H, W, 3), uint8 or 16 bits as in the archive."""
        return read_image(self.folder / str(self._row(image_id)["image"]))

    def label_map(self, image_id: str) -> LabelMap:
        row = self._row(image_id)
        if row["subset"] != "train":
            raise UserError(f"{self.folder}: image {image_id} is a test image and has no label map")
        return read_label_map(self.folder / str(row["label"]))

    def files(self, image_id: str) -> list[bytes]:
        """The bytes of the image's file and, of a training image, the label map's."""
        row = self._row(image_id)
        files = [_read_file(self.folder / str(row["image"]), "image")]
        if row["subset"] == "train":
            files.append(_read_file(self.folder / str(row["label"]), "label map"))
        return files

    def size(self, image_id: str) -> tuple[int, int]:
        """Height and width in pixels."""
        row = self._row(image_id)
        return int(row["height"]), int(row["width"])

    def modality(self, image_id: str) -> str:
        return str(self._row(image_id)["modality"])

    def source(self, image_id: str) -> str:
        """The series that the image comes from, see `image_sources`."""
        row = self._row(image_id)
        if "source" not in row:
            raise UserError(f"{self.folder / 'index.csv'}: has no column source; run `make data` again")
        return str(row["source"])

    def _row(self, image_id: str) -> dict[str, Any]:
        if image_id not in self._rows:
            raise UserError(f"{self.folder / 'index.csv'}: unknown image {image_id}; run `make data` again")
        return self._rows[image_id]


def _read_file(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: no readable {what} ({error.strerror}); run `make data` again") from error
