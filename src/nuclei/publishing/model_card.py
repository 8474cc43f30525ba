"""Model cards: of a file of weights and of an ensemble, and the README of a weights folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nuclei.config import Config
from nuclei.config_files import parse_config
from nuclei.data.set_provenance import SetProvenance
from nuclei.errors import UserError
from nuclei.evaluation.ensemble_weights import EnsembleWeights
from nuclei.evaluation.scores import TunedScore
from nuclei.evaluation.unseen import REMEDY, UnseenScores, summarise_unseen
from nuclei.io.files import write_text
from nuclei.models.weights_file import VERSION, Card, EnsembleCard, UnseenScore
from nuclei.reporting.rendering import table_line


def make_ensemble_card(
    tuned: TunedScore,
    weights: EnsembleWeights,
    members: Mapping[str, float],
    unseen: UnseenScores | None = None,
) -> EnsembleCard:
    """The card of an ensemble; `members` are the scores on the members' cards, by name.

    `unseen` are the ensemble's scores on unseen sources, where it has some.

    Raises:
        UserError: ensemble weights of other members; nothing was tuned.
    """
    if set(weights.members) != set(members):
        raise UserError(
            f"the networks are of {sorted(members)}, the ensemble weights of "
            f"{sorted(weights.members)}; give the files of one ensemble"
        )
    return EnsembleCard(
        version=VERSION,
        unseen=summarise_unseen(unseen) if unseen else None,
        members=dict(members),
        weights=weights.weights,
        parameters=tuned.tuned,
        score=tuned.score,
        images=tuned.n_images,
    )


def make_card(
    checkpoint: Mapping[str, Any],
    tuned: TunedScore,
    data: str,
    licence: str,
    unseen: UnseenScores | None = None,
) -> Card:
    """The card of a checkpoint, with the score and parameters of its experiment's `cv.json`.

    `data` and `licence` are those of the competition's images; those of the external sets that the
    checkpoint names are added. `unseen` are the experiment's scores on unseen sources, where it has
    some.

    Raises:
        UserError: the files are of different experiments; nothing was tuned.
    """
    config = parse_config(checkpoint["config"], "checkpoint")
    if tuned.experiment != config.name:
        raise UserError(
            f"the checkpoint is of {config.name}, cv.json of {tuned.experiment}; give the cv.json "
            "that the tuning wrote for this experiment"
        )
    if unseen and unseen.experiment != config.name:
        raise UserError(f"the checkpoint is of {config.name}, unseen.json of {unseen.experiment}; {REMEDY}")
    external = [SetProvenance.model_validate(each) for each in checkpoint.get("external", [])]
    return Card(
        version=VERSION,
        external=external,
        unseen=summarise_unseen(unseen) if unseen else None,
        name=config.name,
        fold=checkpoint.get("fold"),
        config=config.model_dump(mode="json"),
        parameters=tuned.tuned,
        score=tuned.score,
        images=tuned.n_images,
        trained_on=sorted(checkpoint["trained_on"]),
        data="; ".join([data, *(each.title for each in external)]),
        licence="; ".join(dict.fromkeys([licence, *(each.licence for each in external)])),
    )


def write_page(path: Path | str, cards: Sequence[Card], sizes: Sequence[int]) -> None:
    """Writes the README.md of a folder of weights: what they are, their score, how to use them."""
    from nuclei.models.factory import OURS

    card = cards[0]
    config = Config.model_validate(card.config)
    encoder = "" if config.model.architecture in OURS else f" with encoder {config.model.encoder}"
    folds = ", ".join(str(each.fold) for each in cards)
    general = card.parameters.general.to_dict()
    write_text(
        path,
        f"""# {card.name}

Weights of `configs/{card.name}.toml` ({config.model.architecture}{encoder}), one file a fold (held out: {folds}), in
half precision, {max(sizes) / 1e6:.1f} MB at most. Their probability maps are averaged.

| | |
|---|---|
| trained on | {card.data}, {card.images} images in {len(cards)} folds |
| score out of fold | {card.score:.4f} (mean average precision over IoU 0.50 to 0.95; tuned on the other folds) |
| score on unseen sources | {_format_unseen(card.unseen)} |
| post-processing | {", ".join(f"{name} {value:g}" for name, value in general.items())} |
| licence of the data | {card.licence} |
{_format_external(card)}| format | safetensors, version {card.version} of the card in its metadata |

```
make segment IMAGES=my_images OUT=my_results WEIGHTS=weights/{card.name}   # your own images
make submission WEIGHTS=weights/{card.name}                                # the competition's, without training
```

```python
from nuclei import segment

label_map = segment("image.tif", weights="weights/{card.name}")
```
""",
    )


def _format_external(card: Card) -> str:
    """Rows that name the source and citation of each external set."""
    rows = [f"{each.title}: {each.source}, {each.citation} ({each.licence})" for each in card.external]
    return "".join(f"{table_line(['external set', row])}\n" for row in rows)


def _format_unseen(unseen: UnseenScore | None) -> str:
    if unseen is None:
        return "not measured; on images of other laboratories expect less than out of fold"
    return (
        f"{unseen.score:.4f} ({unseen.low:.3f} to {unseen.high:.3f} over {unseen.sources} "
        "resampled sources; trained with whole sources held out)"
    )
