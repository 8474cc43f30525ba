"""Origin and licence of an external data set: kept in its folder, in checkpoints and in cards."""

from pydantic import Field

from nuclei.io.records import Record

PROVENANCE = "provenance.json"
"""File of a set that says where it comes from."""
NOT_STATED = "not stated"


class FileNote(Record):
    """A file that a set was made from."""

    url: str
    bytes: int
    sha256: str


class SetProvenance(Record):
    """Title, licence, source and citation of a set, and what it was made from."""

    name: str
    title: str
    licence: str
    source: str
    citation: str
    files: dict[str, FileNote] = Field(default_factory=dict)
    images: int = 0
    nuclei: int = 0
    refused: dict[str, str] = Field(default_factory=dict)
    """Images that were left out, each with the competition's image that it is."""

    def short(self) -> "SetProvenance":
        """The same without files and refused images, for a checkpoint or a card."""
        return self.model_copy(update={"files": {}, "refused": {}})


def unstated(name: str) -> SetProvenance:
    """Provenance of a set without any: not stated."""
    return SetProvenance(name=name, title=name, licence=NOT_STATED, source=NOT_STATED, citation=NOT_STATED)
