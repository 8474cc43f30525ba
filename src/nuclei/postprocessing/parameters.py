"""The settings of the post-processing, and those that a tuning found, as they stand in `cv.json` and on a card."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, PlainSerializer

from nuclei.errors import UserError

DROPPING = ("area", "relative_area", "confidence", "peak")
"""Parameters that say which nuclei are dropped; the others say how nuclei grow."""
_SHARES = ("foreground", "seed", "confidence", "peak")
_UP_TO_1 = (*_SHARES, "rim", "split_area", "relative_area", "least_certainty")


@dataclass(frozen=True)
class Parameters:
    """How maps become nuclei. Thresholds are shares of the image's certainty and hold from the value on; areas are
    pixels.

    The defaults did well on out-of-fold maps of three small UNets; `tuning` finds those of an experiment.
    """

    foreground: float = 0.65
    """Foreground from which on a pixel belongs to a nucleus."""
    rim: float = 0.0
    """Foreground that it must have besides, as a share of its nucleus's own mean."""
    seed: float = 0.3
    """Value of the seed map from which on a pixel belongs to a seed."""
    border: float = 1.0
    """How many times the border is subtracted from the core to give the seed map."""
    split_levels: int = 2
    """How many higher levels, 0.1 apart, are tried to split a seed in two."""
    split_area: float = 0.2
    """A part of a seed at a higher level counts if it has this share of the seed's area; two must count."""
    seed_area: int = 20
    """Smallest seed; foreground in which no seed remains is one nucleus."""
    area: int = 20
    """Smallest nucleus."""
    relative_area: float = 0.1
    """Smallest nucleus as a share of the median area of the image's nuclei."""
    confidence: float = 0.875
    """Smallest mean foreground of a nucleus."""
    peak: float = 0.2
    """Smallest maximum of the seed map in a nucleus."""
    least_certainty: float = 0.7
    """Certainty that any image is given at least, so that faint noise makes no nuclei; with 1 the thresholds are
    probabilities, the same in all images."""

    def __post_init__(self) -> None:
        for name in _UP_TO_1:
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"parameter {name} is {getattr(self, name)}; give a value from 0 to 1")
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isfinite(value) and value >= 0):
                raise UserError(f"parameter {field.name} is {value}; give a number of 0 or more")
            if field.type is int and not isinstance(value, int):
                raise UserError(f"parameter {field.name} is {value}; give a whole number")

    def at(self, certainty: float) -> Self:
        """The thresholds as probabilities, for an image of this certainty."""
        certainty = max(certainty, self.least_certainty)
        return replace(self, **{name: getattr(self, name) * certainty for name in _SHARES})

    def to_dict(self) -> dict[str, float | int]:
        """The values by name, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The parameters of a table by name, all of them given.

        Raises:
            UserError: names missing or unknown; a value that is no number or lies outside its range.
        """
        if not isinstance(values, Mapping):
            raise UserError(f"post-processing parameters: expected a table by name, got {values!r:.60}")
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            raise UserError(
                f"post-processing parameters: missing {sorted(expected - set(values))}, "
                f"unknown {sorted(set(values) - expected)}; run the tuning again"
            )
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"post-processing parameter {name} is {value!r}; give a number")
        return cls(**values)


@dataclass(frozen=True)
class Tuned:
    """What the tuning found: parameters for any image, and others for images of a modality where those paid."""

    general: Parameters
    modality: Mapping[str, Parameters]

    def of(self, modality: str) -> Parameters:
        """The parameters for an image of this modality."""
        return self.modality.get(modality, self.general)

    def to_dict(self) -> dict[str, Any]:
        """The general values by name; under `modality`, where there are any, those of each."""
        own = {modality: parameters.to_dict() for modality, parameters in sorted(self.modality.items())}
        return {**self.general.to_dict(), **({"modality": own} if own else {})}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` gave.

        Raises:
            UserError: as in `Parameters.from_dict`.
        """
        if not isinstance(values, Mapping) or not isinstance(values.get("modality", {}), Mapping):
            raise UserError(f"post-processing parameters: expected a table by name, got {values!r:.60}")
        general = {name: value for name, value in values.items() if name != "modality"}
        own = values.get("modality", {})
        return cls(Parameters.from_dict(general), {name: Parameters.from_dict(part) for name, part in own.items()})


def _read_tuned(values: Any) -> Any:
    return values if isinstance(values, Tuned) else Tuned.from_dict(values)


TunedRecord = Annotated[Tuned, BeforeValidator(_read_tuned), PlainSerializer(Tuned.to_dict, return_type=dict[str, Any])]
"""`Tuned` as a field of a pydantic model, in JSON as `Tuned.to_dict` writes it."""
