"""Post-processing parameters, and the tuned ones as stored in `cv.json` and in model cards."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, PlainSerializer

from nuclei.errors import UserError
from nuclei.io.records import rename_keys

FILTER_PARAMETERS = (
    "min_area",
    "min_relative_area",
    "min_mean_probability",
    "min_seed_peak",
)
"""Parameters of the filter that removes false instances; the others shape the instances."""
RENAMED = {
    "foreground": "foreground_threshold",
    "rim": "instance_threshold",
    "seed": "seed_threshold",
    "border": "border_weight",
    "split_area": "min_split_fraction",
    "seed_area": "min_seed_area",
    "area": "min_area",
    "relative_area": "min_relative_area",
    "confidence": "min_mean_probability",
    "peak": "min_seed_peak",
    "least_certainty": "min_certainty",
}
"""Parameters of earlier versions and their names of today; files with the old names are read."""
_SCALED_BY_CERTAINTY = (
    "foreground_threshold",
    "seed_threshold",
    "min_mean_probability",
    "min_seed_peak",
)
_AT_MOST_1 = (
    *_SCALED_BY_CERTAINTY,
    "instance_threshold",
    "min_split_fraction",
    "min_relative_area",
    "min_certainty",
)


@dataclass(frozen=True)
class Parameters:
    """How probability maps become instances.

    Probability thresholds are fractions of the image's certainty (`watershed.measure_certainty`)
    and inclusive. Areas are in pixels. The defaults did well on out-of-fold maps of three small
    UNets; `evaluation.tuning` finds those of an experiment.
    """

    foreground_threshold: float = 0.65
    """Smallest foreground probability of a pixel in a nucleus."""
    instance_threshold: float = 0.0
    """Smallest foreground probability as a fraction of the mean over the pixel's own nucleus."""
    seed_threshold: float = 0.3
    """Smallest value of the seed map in a watershed marker."""
    border_weight: float = 1.0
    """The seed map is the core map minus this many times the border map."""
    split_levels: int = 2
    """Number of higher seed thresholds, 0.1 apart, at which a marker may split into several."""
    min_split_fraction: float = 0.2
    """Smallest part of a split marker, as a fraction of the marker's area."""
    min_seed_area: int = 20
    """Smallest marker; a foreground component without a marker is one nucleus."""
    min_area: int = 20
    """Smallest nucleus."""
    min_relative_area: float = 0.1
    """Smallest nucleus as a fraction of the median area of the image's nuclei."""
    min_mean_probability: float = 0.875
    """Smallest mean foreground probability of a nucleus."""
    min_seed_peak: float = 0.2
    """Smallest maximum of the seed map in a nucleus."""
    min_certainty: float = 0.7
    """Lower bound of an image's certainty, so that faint noise makes no nuclei. With 1 the
    thresholds are probabilities, the same in all images."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isfinite(value) and value >= 0):
                raise UserError(f"parameter {field.name} is {value}; give a number of 0 or more")
            if field.name in _AT_MOST_1 and value > 1:
                raise UserError(f"parameter {field.name} is {value}; give a value from 0 to 1")
            if field.type is int and not isinstance(value, int):
                raise UserError(f"parameter {field.name} is {value}; give a whole number")

    def at(self, certainty: float) -> Self:
        """These parameters with thresholds in probabilities, for an image of this certainty."""
        certainty = max(certainty, self.min_certainty)
        scaled = {name: getattr(self, name) * certainty for name in _SCALED_BY_CERTAINTY}
        return replace(self, **scaled)

    def to_dict(self) -> dict[str, float | int]:
        """The values by name, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The parameters of a table that gives each of them by name, old names included.

        Raises:
            UserError: names missing or unknown; a value that is no number or out of range.
        """
        values = rename_keys(_check_table(values), RENAMED, "post-processing parameters")
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            unknown = [name[:40] for name in sorted(set(values) - expected)[:20]]
            raise UserError(
                f"post-processing parameters: missing {sorted(expected - set(values))}, "
                f"unknown {unknown}; run the tuning again"
            )
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"parameter {name} is {value!r:.60}; give a number")
        return cls(**values)


NEUTRAL = Parameters(foreground_threshold=0.5, seed_threshold=0.2, min_relative_area=0.0)
"""Parameters that hold on sources that training never saw: a pixel with a probability of at least
one half belongs to a nucleus.
"""


@dataclass(frozen=True)
class Tuned:
    """Tuned parameters: general ones, and others for modalities in which those scored better."""

    general: Parameters
    modality: Mapping[str, Parameters]

    def of(self, modality: str) -> Parameters:
        """The parameters for an image of this modality."""
        return self.modality.get(modality, self.general)

    def to_dict(self) -> dict[str, Any]:
        """The general values by name; those of modalities, if there are any, under `modality`."""
        own = {name: parameters.to_dict() for name, parameters in sorted(self.modality.items())}
        return {**self.general.to_dict(), **({"modality": own} if own else {})}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            UserError: as in `Parameters.from_dict`.
        """
        values = dict(_check_table(values))
        own = _check_table(values.pop("modality", {}))
        modality = {name: Parameters.from_dict(part) for name, part in own.items()}
        return cls(Parameters.from_dict(values), modality)


def _check_table(values: Any) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise UserError(f"post-processing parameters: expected a table, got {values!r:.60}")
    return values


def _read_tuned(values: Any) -> Any:
    return values if isinstance(values, Tuned) else Tuned.from_dict(values)


TunedRecord = Annotated[
    Tuned, BeforeValidator(_read_tuned), PlainSerializer(Tuned.to_dict, return_type=dict[str, Any])
]
"""`Tuned` as a field of a pydantic model, in JSON as `Tuned.to_dict` writes it."""
