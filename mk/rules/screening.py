"""Rules of `make screen`: an idea and its reference under one small budget on one fold."""

from pathlib import Path

from rules.book import Book
from rules.configs import Experiment, Table, read_experiments, read_table
from rules.settings import Settings
from rules.studies import COMPARE, write_measured
from rules.text import RefusedError, nearest

GOAL = "screen"
COST = ("steps", "steps_per_epoch", "batch_size", "crop", "validation_images")
"""Keys of [training] that the budget always sets; the others only if the config does not."""


def write_screening(book: Book, settings: Settings) -> dict[str, str]:
    """The rules of both networks; the paths of what they score and of the page, for the recipe.

    Raises:
        RefusedError: an unknown config, one that needs other trainings, or the same one twice.
    """
    if not (COMPARE / "budget.toml").is_file():
        return {}
    asked = settings.is_screening
    name, other = settings["MODEL"], settings["AGAINST"]
    try:
        compared = read_experiments(COMPARE)
        compared.pop("budget", None)
        own = _find("EXP", name, settings.experiments, compared)
        reference = _find("AGAINST", other, compared, settings.experiments)
        if own.name == reference.name:
            raise RefusedError(f"screen: {own.name} against itself; give AGAINST=<another config>")
    except RefusedError:
        if asked:
            raise
        return {}
    budget = read_table(COMPARE / "budget.toml")
    steps = int(settings["STEPS"] or budget["training"]["steps"])
    folder = settings.path("RUNS", GOAL, f"{steps}_steps_fold_{settings['HELD_OUT']}")
    book.chapter("an idea under a small budget")
    measured = []
    for config in (own, reference):
        run = f"{folder}/{config.path.parent.name}/{config.name}"
        training = _budget_of(config, budget["training"]) | {"steps": steps}
        write_measured(book, settings, run, config, training, budget["prediction"])
        measured.append(f"{run}/measured.json")
    page = f"{folder}/{own.name}_against_{reference.name}.html"
    return {"screened_own": measured[0], "screened_reference": measured[1], "screen_page": page}


def _find(setting: str, name: str, first: dict[str, Experiment], second: dict[str, Experiment]) -> Experiment:
    config = first.get(name) or second.get(name)
    if config is None:
        raise RefusedError(f"{setting}: no config {name}{nearest(name, [*first, *second])}")
    if config.fault:
        raise RefusedError(config.fault)
    earlier = config.start or config.pseudo
    if earlier or config.external:
        what = f"builds upon {earlier}" if earlier else "trains on external sets too"
        raise RefusedError(
            f"screen: {name} {what}, which no small budget holds; train it whole: make train EXP={name}"
        )
    return config


def _budget_of(config: Experiment, budget: Table) -> Table:
    """The budget's keys for a config: what the idea itself changes stays, except for the cost."""
    changed = read_table(Path(config.path)).get("training", {})
    return {key: value for key, value in budget.items() if key in COST or key not in changed}
