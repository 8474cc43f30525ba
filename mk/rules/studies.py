"""Rules of studies under one budget: `make compare`, `make learning-curve`, `make ablation`."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from rules.book import Book
from rules.configs import Experiment, Table, canonical, merge, read_experiments, read_table
from rules.experiments import average
from rules.settings import Settings
from rules.text import RefusedError, nearest, path_text, shell_text

COMPARE, ABLATION = Path("configs/compare"), Path("configs/ablation")
CURVE_SPLITS = "splits_curve.csv"
"""Folds of the learning curve: images of seen and of unseen sources are held out together."""
CURVE_NETWORK = "resunet"
"""The variant of configs/compare that the learning curve trains."""
CURVE_STEPS = "1500"
"""Steps of a training of the learning curve; fewer would limit the score, not the images."""
KINDS = ("folds", "modalities")
"""What an ablation holds out: the folds, and one modality after the other."""


def write_studies(book: Book, settings: Settings) -> None:
    """Rules of both, if their configs are there: a Kaggle notebook may have experiments alone."""
    if not (COMPARE / "budget.toml").is_file():
        return
    steps = settings["STEPS"] or str(read_table(COMPARE / "budget.toml")["training"]["steps"])
    write_comparison(book, settings, steps)
    write_ablation(book, settings, steps)


def pick(settings: Settings, setting: str, known: list[str]) -> list[str]:
    """What a setting chooses among the configs that there are, or all."""
    for word in settings.words(setting):
        if word not in known:
            raise RefusedError(f"{setting}: no config {word}{nearest(word, known)}")
    return settings.words(setting) or known


def budgeted(book: Book, path: str, config: Experiment, extra: Table, prediction: Table | None = None) -> Table:
    """A config that extends another one with a budget, written to `path`; its values.

    `extra` are keys of [training], `prediction` of [prediction].
    """
    folder = os.path.dirname(path)
    inside = not (os.path.isabs(path) or path.startswith(".."))
    # relative where it can be, so that a folder that moves takes its runs along
    other = os.path.relpath(config.path, folder) if inside else os.path.abspath(config.path)
    sections = {"training": extra} | ({"prediction": prediction} if prediction else {})
    lines = [f"extends = {json.dumps(other, ensure_ascii=False)}"]
    for section, table in sections.items():
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    book.record(path, "\n".join(lines) + "\n", [])
    return merge([sections, config.values])


# --- variants on one fold, and more and more images
# -------------------------------------------------------------------


def write_comparison(book: Book, settings: Settings, steps: str) -> None:
    folder, configs = settings.path("RUNS", "compare", f"{steps}_steps"), read_experiments(COMPARE)
    configs.pop("budget", None)
    variants = pick(settings, "VARIANTS", list(configs))
    book.chapter("comparison under one budget")
    for name, config in configs.items():
        if not config.fault:
            write_measured(book, settings, f"{folder}/{name}", config, {"steps": int(steps)})
        elif name in variants and settings.is_given("VARIANTS"):
            raise RefusedError(config.fault)
    curve_steps = settings["STEPS"] or CURVE_STEPS
    curve_folder = settings.path("RUNS", "learning_curve", f"{curve_steps}_steps")
    points = [(images, seed) for images in settings.words("COUNTS") for seed in settings.words("SEEDS")]
    book.chapter("learning curve")
    for images, seed in points:
        if images != "all" and not images.isdecimal():
            raise RefusedError(f"COUNTS={settings['COUNTS']}: numbers of images, or all")
        extra = {"steps": int(curve_steps), "seed": int(seed)} | (
            {} if images == "all" else {"images": int(images)}
        )
        run = f"{curve_folder}/images_{images}_seed_{seed}"
        write_measured(book, settings, run, configs[CURVE_NETWORK], extra, splits=CURVE_SPLITS)
    book.chapter("tables of the comparison")
    write_table(book, settings, "compare", steps, [f"{folder}/{name}" for name in variants])
    curve = [f"{curve_folder}/images_{images}_seed_{seed}" for images, seed in points]
    write_table(book, settings, "learning_curve", curve_steps, curve)


def write_measured(
    book: Book,
    settings: Settings,
    run: str,
    config: Experiment,
    extra: Table,
    prediction: Table | None = None,
    splits: str = "splits.csv",
) -> None:
    """One fold trained under the budget, and measured; of CURVE_SPLITS the first."""
    fold, data = "0" if splits == CURVE_SPLITS else settings["HELD_OUT"], settings["DATA"]
    values = budgeted(book, f"{run}.toml", config, extra, prediction)
    model, out = f"{run}/fold_{fold}/model.pt", f"{run}/measured.json"
    images = f"--processed {path_text(data)}/processed --splits {path_text(data)}/{splits}"
    # [prediction] too: the measurement takes the checkpoint's own
    needs, after = book.record(f"{run}/training.json", canonical(values), [model])
    book.add(
        [model],
        [*needs, f"{data}/{splits}"],
        "train",
        f"--config {path_text(run)}.toml {images} --fold {fold}",
        f"--out {path_text(os.path.dirname(model))} --device $(device) --workers $(workers)",
        after=[f"{run}.toml", *after],
        training=f"{os.path.basename(run)} {fold}",
        job=f"{os.path.basename(run)} fold {fold}",
    )
    book.add(
        [out],
        [model],
        "measure",
        f"--checkpoint {path_text(model)} {images}",
        f"--out {path_text(out)} --device $(device)",
        job=f"{os.path.basename(run)} fold {fold}",
    )


def write_table(book: Book, settings: Settings, table: str, steps: str, runs: list[str]) -> None:
    """The table, the plot and the page of measured runs."""
    out, measured = settings["COMPARISONS"], [f"{run}/measured.json" for run in runs]
    command = f"make {table.replace('_', '-')} STEPS={steps}{other_data(settings)}"
    book.add(
        [f"{out}/{table}.csv"],
        measured,
        "compare",
        f"--measured {' '.join(map(path_text, measured))}",
        f"--configs {COMPARE} --table {table} --out {path_text(out)} --command {shell_text(command)}",
    )


def other_data(settings: Settings) -> str:
    return "" if settings["DATA"] == "data" else f" DATA={settings['DATA']}"


# --- ablation: each config extends the one before
# ---------------------------------------------------------------------


def write_ablation(book: Book, settings: Settings, steps: str) -> None:
    """Every step on folds and modalities; one that changes only [prediction] trains nothing."""
    by_name = read_experiments(ABLATION)
    wanted = {"folds": pick(settings, "ABLATION_STEPS", sorted(by_name))}
    wanted["modalities"] = (
        pick(settings, "UNSEEN_STEPS", sorted(by_name)) if settings["UNSEEN_STEPS"] else wanted["folds"]
    )
    folder = settings.path("RUNS", "ablation", f"{steps}_steps")
    book.chapter("ablation")
    for step in by_name.values():
        if step.fault:
            raise RefusedError(step.fault)
        write_step(book, settings, folder, by_name, step, steps)
    scores = {kind: list(find_scores(settings, folder, by_name, wanted[kind], kind)) for kind in KINDS}
    given = [f" {name}='{settings[name]}'" for name in ("STEPS", *REPEATED) if name in settings.given]
    out, command = settings["ABLATION"], f"make ablation{''.join(given)}{other_data(settings)}"
    listed = [f"--{kind} {' '.join(map(path_text, scores[kind]))}".rstrip() for kind in KINDS]
    book.add(
        [f"{out}/README.md", f"{out}/ablation.csv"],
        [path for kind in KINDS for path in scores[kind]],
        "ablate",
        f"--configs {ABLATION} --out {path_text(out)}",
        *listed,
        f"--command {shell_text(command)}",
    )


REPEATED = ("ABLATION_STEPS", "UNSEEN_STEPS", "FOLDS", "MODALITIES")
"""Settings that the page names in its command."""


def step_before(by_name: dict[str, Experiment], step: Experiment) -> Experiment:
    return by_name[Path(step.extends).stem]


def trained_by(by_name: dict[str, Experiment], step: Experiment) -> Experiment:
    """The step whose weights this one uses: the last that changes more than [prediction]."""
    while not set(step.changed) - {"prediction"}:
        step = step_before(by_name, step)
    return step


def predicted_by(by_name: dict[str, Experiment], step: Experiment) -> Experiment:
    """The step whose maps this one uses; a step that changes nothing only tunes on them."""
    while not step.changed:
        step = step_before(by_name, step)
    return step


def held_out(settings: Settings, kind: str) -> list[str]:
    if kind == "modalities":
        return settings.words("MODALITIES")
    return [] if settings.given.get("FOLDS") == "" else settings.folds  # `FOLDS=`: modalities alone


def splits_of(settings: Settings, kind: str) -> str:
    return settings.path("DATA", "splits.csv" if kind == "folds" else "splits_modality.csv")


def write_step(
    book: Book, settings: Settings, folder: str, by_name: dict[str, Experiment], step: Experiment, steps: str
) -> None:
    if not step.changed:
        for kind in filter(lambda kind: held_out(settings, kind), KINDS):
            write_tuned_step(book, settings, f"{folder}/{kind}", step, predicted_by(by_name, step), kind)
        return
    source = trained_by(by_name, step)
    config = f"{folder}/{step.name}.toml"
    kinds = [(kind, fold) for kind in KINDS for fold in held_out(settings, kind)]
    places = [(kind, fold, f"{folder}/{kind}/{step.name}/fold_{fold}") for kind, fold in kinds]
    values = budgeted(book, config, step, {"steps": int(steps)})
    budget = Experiment(step.name, Path(config), values)
    own, models = f"{folder}/{step.name}", [f"{place}/model.pt" for _, _, place in places]
    maps = [f"{place}/oof.npz" for _, _, place in places]
    trained, after_trained = book.record(f"{own}/training.json", budget.training(), models)
    predicted, after_predicted = book.record(f"{own}/prediction.json", budget.prediction(), maps)
    for kind, fold, place in places:
        splits = splits_of(settings, kind)
        images = f"--processed {path_text(settings.path('DATA', 'processed'))} --splits {path_text(splits)}"
        model = f"{folder}/{kind}/{source.name}/fold_{fold}/model.pt"
        if source is step:
            book.add(
                [model],
                [*trained, splits],
                "train",
                f"--config {path_text(config)} {images} --fold {fold}",
                f"--out {path_text(place)} --device $(device) --workers $(workers)",
                after=[config, *after_trained],
                training=f"{step.name} {fold}",
                job=f"{step.name} fold {fold}, of {kind}",
            )
        book.add(
            [f"{place}/oof.npz"],
            [model, *predicted],
            "predict",
            f"--config {path_text(config)} --checkpoint {path_text(model)} {images}",
            f"--oof {path_text(place)}/oof.npz --device $(device)",
            after=[config, *after_predicted],
            job=f"{step.name} fold {fold}, of {kind}",
        )
        book.add(
            [f"{place}/scores.json"],
            [f"{place}/oof.npz"],
            "score_fold",
            f"--maps {path_text(place)}/oof.npz --checkpoint {path_text(model)} {images}",
            f"--out {path_text(place)}/scores.json",
        )


def write_tuned_step(
    book: Book, settings: Settings, folder: str, step: Experiment, source: Experiment, kind: str
) -> None:
    """A step that has the maps of another one, and post-processing tuned on them."""
    inputs = [f"{folder}/{source.name}/fold_{fold}/oof.npz" for fold in held_out(settings, kind)]
    oof, cv = f"{folder}/{step.name}/oof.npz", f"{folder}/{step.name}/cv.json"
    average(book, settings.path("DATA", "processed", "index.csv"), inputs, oof, "train")
    book.add(
        [cv],
        [oof],
        "tune",
        f"--maps {path_text(oof)} --processed {path_text(settings.path('DATA', 'processed'))}",
        f"--splits {path_text(splits_of(settings, kind))} --out {path_text(cv)}",
    )


def find_scores(
    settings: Settings, folder: str, by_name: dict[str, Experiment], wanted: list[str], kind: str
) -> Iterator[str]:
    """The files with the scores of steps; one that is tuned needs every image held out once."""
    whole = {"folds": not settings.some_folds, "modalities": not settings.is_given("MODALITIES")}
    complete = kind in settings.words("COMPLETE") or (whole[kind] and not settings.is_given("COMPLETE"))
    for name in wanted:
        if by_name[name].changed:
            for fold in held_out(settings, kind):
                yield f"{folder}/{kind}/{name}/fold_{fold}/scores.json"
        elif complete and held_out(settings, kind):
            yield f"{folder}/{kind}/{name}/cv.json"
