"""Rules of the experiments and their ensemble: train, predict, average, tune, submit, pack."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from rules.book import Book, fail
from rules.configs import Experiment, canonical
from rules.settings import NO_HOLD_OUT, Settings, read_folds
from rules.text import NAME, RefusedError, nearest, path_text


@dataclass(frozen=True)
class Scope:
    """Folds averaged, tuned and submitted together, all or some, and their images' tables."""

    folds: list[str]
    runs: str
    index: str
    splits: str
    suffix: str = ""
    maps: tuple[str, ...] = ("oof", "test")
    """Of held-out images, and of the test images."""

    @property
    def tables(self) -> list[str]:
        """The tables, where they are made for these folds."""
        return [self.index, self.splits] if self.suffix else []


SUBSET = {"oof": "train", "test": "test"}
"""The images of each kind of maps."""
MACHINE = "--device $(device) --devices $(devices) --nodes $(nodes)"


def write_experiments(book: Book, settings: Settings) -> None:
    """Rules of all experiments without a fault, and of the ensemble of the chosen ones."""
    for name, experiment in settings.experiments.items():
        fault = experiment.fault or find_fault(settings, experiment)
        settings.experiments[name] = replace(experiment, fault=fault)
    index = settings.path("DATA", "processed", "index.csv")
    whole = Scope(settings.all_folds, settings["RUNS"], index, settings["SPLITS"])
    for name in settings.chosen:
        if name in settings.experiments and settings.experiments[name].fault:
            raise RefusedError(settings.experiments[name].fault)
    for name, experiment in settings.experiments.items():
        if not experiment.fault:
            book.chapter(name)
            write_training(book, settings, whole, experiment)
            write_joined(book, settings, whole, name)
            write_tuned(book, settings, whole, name)
            write_packed(book, settings, experiment)
    book.chapter("ensemble")
    write_ensemble(book, settings, whole)
    write_tuned(book, settings, whole, "ensemble")
    if settings.label:
        write_some_folds(book, settings)
    write_unseen(book, settings)


def find_fault(settings: Settings, experiment: Experiment, seen: tuple[str, ...] = ()) -> str:
    """What is wrong with the experiments that this one builds upon, or nothing."""
    seen = (*seen, experiment.name)
    for key, other in (("start", experiment.start), ("pseudo_labels", experiment.pseudo)):
        if not other or (key == "start" and NAME.fullmatch(other) and all_shipped(settings, other)):
            continue
        where = f"{experiment.path}: training.{key} = {other!r}"
        if other not in settings.experiments:
            return f"{where}: no such experiment{nearest(other, settings.experiments)}"
        if other in seen:
            return f"{where}: experiments build upon each other in a circle: {' '.join(seen)}"
        fault = settings.experiments[other].fault or find_fault(settings, settings.experiments[other], seen)
        if fault:
            return f"{where}: {fault}"
    return ""


def all_shipped(settings: Settings, name: str) -> bool:
    return all(is_shipped(settings, name, fold) for fold in settings.all_folds)


def is_shipped(settings: Settings, name: str, fold: str) -> bool:
    return Path(settings.path("PACKED", name, f"fold_{fold}.safetensors")).is_file()


def write_training(book: Book, settings: Settings, scope: Scope, experiment: Experiment) -> None:
    """model.pt of every fold, and its maps of the held-out and, if wanted, the test images."""
    folder, splits, config = f"{scope.runs}/{experiment.name}", scope.splits, path_text(str(experiment.path))
    folds = {fold: f"{folder}/fold_{fold}" for fold in scope.folds}
    images = f"--processed {path_text(settings.path('DATA', 'processed'))} --splits {path_text(splits)}"
    trained = [f"{place}/model.pt" for place in folds.values()]
    predicted = [f"{place}/{maps}.npz" for place in folds.values() for maps in scope.maps]
    training, before_training = book.record(f"{folder}/training.json", experiment.training(), trained)
    prediction, before_prediction = book.record(f"{folder}/prediction.json", experiment.prediction(), predicted)
    by_source = "test" not in scope.maps
    label = f"{'by_source/' if by_source else ''}{experiment.name}"
    if not experiment.pseudo and not by_source:
        folds[NO_HOLD_OUT] = f"{folder}/fold_{NO_HOLD_OUT}"
    for fold, place in folds.items():
        model = f"{place}/model.pt"
        earlier = []
        # a network trained on all images starts from the one of the first fold
        start_fold = scope.folds[0] if fold == NO_HOLD_OUT else fold
        # shipped weights hold out tiles of one slide, not sources
        if experiment.start and (by_source or not is_shipped(settings, experiment.start, start_fold)):
            earlier.append(f"{scope.runs}/{experiment.start}/fold_{start_fold}/model.pt")
        if experiment.pseudo:
            other = f"{scope.runs}/{experiment.pseudo}"
            earlier += [f"{other}/fold_{fold}/test.npz", f"{other}/cv.json"]
        book.add(
            [model],
            [*training, splits, *earlier],
            "train",
            f"--config {config} {images} --fold {fold} --out {path_text(place)} --runs {path_text(scope.runs)}",
            *(["--external $(external)"] if experiment.external else []),
            f"{MACHINE} --workers $(workers) $(if $(compile),--compile)",
            after=before_training,
            training=f"{label} {fold}",
            job=f"{label} fold {fold}",
        )
        if fold == NO_HOLD_OUT:
            continue
        maps = [f"--{maps} {path_text(place)}/{maps}.npz" for maps in scope.maps]
        book.add(
            [f"{place}/{maps}.npz" for maps in scope.maps],
            [model, *prediction],
            "predict",
            f"--checkpoint {path_text(model)} --config {config} {images}",
            f"{' '.join(maps)} {MACHINE}",
            after=before_prediction,
            job=f"{label} fold {fold}",
        )


def write_some_folds(book: Book, settings: Settings) -> None:
    """The chosen experiments and their ensemble on some folds only: own folder, own CSV."""
    place = settings.path("RUNS", "some_folds", settings.label)
    scope = Scope(settings.folds, place, f"{place}/index.csv", f"{place}/splits.csv", f"_{settings.label}")
    index = settings.path("DATA", "processed", "index.csv")
    book.chapter(f"some folds: {' '.join(settings.folds)}")
    book.add(
        scope.tables,
        [index, settings["SPLITS"]],
        "select_folds",
        f"--index {path_text(index)} --splits {path_text(settings['SPLITS'])}",
        f"--folds {' '.join(settings.folds)} --out {path_text(scope.splits)}",
    )
    for name in settings.chosen:
        write_joined(book, settings, scope, name)
        write_tuned(book, settings, scope, name)
    write_ensemble(book, settings, scope)
    write_tuned(book, settings, scope, "ensemble")


def write_unseen(book: Book, settings: Settings) -> None:
    """Experiments trained with whole sources held out, their ensemble, and the scores there."""
    splits, runs = settings.path("DATA", "splits_source.csv"), settings.path("RUNS", "by_source")
    folds = read_folds(Path(splits)) or [str(fold) for fold in range(int(settings["SPLIT_INTO"]))]
    scope = Scope(folds, runs, settings.path("DATA", "processed", "index.csv"), splits, maps=("oof",))
    names = [name for name, each in settings.experiments.items() if not each.fault and not each.pseudo]
    for name in names:
        book.chapter(f"{name} on unseen sources")
        write_training(book, settings, scope, settings.experiments[name])
        write_joined(book, settings, scope, name)
        write_scored_unseen(book, settings, scope, name)
    if set(settings.chosen) <= set(names):
        book.chapter("ensemble on unseen sources")
        write_ensemble(book, settings, scope)
        write_scored_unseen(book, settings, scope, "ensemble")


def write_scored_unseen(book: Book, settings: Settings, scope: Scope, name: str) -> None:
    """cv.json as of folds that hold sources out, and unseen.json."""
    folder, processed = f"{scope.runs}/{name}", path_text(settings.path("DATA", "processed"))
    write_cross_validated(book, settings, scope, name)
    book.add(
        [f"{folder}/unseen.json"],
        [f"{folder}/cv.json"],
        "score_unseen",
        f"--maps {path_text(folder)}/oof.npz --cv {path_text(folder)}/cv.json --processed {processed}",
        f"--splits {path_text(scope.splits)} --out {path_text(folder)}/unseen.json",
    )


def write_joined(book: Book, settings: Settings, scope: Scope, name: str) -> None:
    """The maps of the folds in one file: held out in one fold each, of the test images averaged."""
    # the networks of some folds are those of all
    trained = settings["RUNS"] if scope.suffix else scope.runs
    for maps in scope.maps:
        subset = SUBSET[maps]
        inputs = [f"{trained}/{name}/fold_{fold}/{maps}.npz" for fold in scope.folds]
        average(book, scope.index, inputs, f"{scope.runs}/{name}/{maps}.npz", subset, needs=scope.tables)


def average(
    book: Book,
    index: str,
    inputs: list[str],
    out: str,
    subset: str,
    *flags: str,
    needs: Iterable[str] = (),
) -> None:
    """The mean of maps, image by image."""
    book.add(
        [out],
        [*inputs, *needs],
        "ensemble",
        f"--inputs {' '.join(map(path_text, inputs))}",
        f"--out {path_text(out)} --index {path_text(index)}",
        f"--subset {subset}",
        *flags,
    )


def write_tuned(book: Book, settings: Settings, scope: Scope, name: str) -> None:
    """cv.json, the post-processing tuned on the held-out maps and its score, and the submission."""
    folder, processed = f"{scope.runs}/{name}", path_text(settings.path("DATA", "processed"))
    test, cv = f"{folder}/test.npz", f"{folder}/cv.json"
    csv = settings.path("SUBMISSIONS", f"{name}{scope.suffix}.csv")
    write_cross_validated(book, settings, scope, name)
    book.add(
        [csv],
        [test, cv],
        "make_submission",
        f"--maps {path_text(test)} --cv {path_text(cv)}",
        f"--processed {processed} --out {path_text(csv)}",
    )


def write_cross_validated(book: Book, settings: Settings, scope: Scope, name: str) -> None:
    """cv.json, the post-processing tuned on the held-out maps and its score."""
    oof, cv = f"{scope.runs}/{name}/oof.npz", f"{scope.runs}/{name}/cv.json"
    book.add(
        [cv],
        [oof, scope.splits],
        "tune",
        f"--maps {path_text(oof)} --processed {path_text(settings.path('DATA', 'processed'))}",
        f"--splits {path_text(scope.splits)} --out {path_text(cv)}",
    )


def write_ensemble(book: Book, settings: Settings, scope: Scope) -> None:
    """Ensemble weights, tuned on out-of-fold maps unless given, and the averaged maps."""
    members, folder = settings.chosen, f"{scope.runs}/ensemble"
    inputs = {maps: [f"{scope.runs}/{name}/{maps}.npz" for name in members] for maps in scope.maps}
    oof = inputs["oof"]
    found = f"{folder}/ensemble_weights.json" if len(members) > 1 and not settings["ENSEMBLE_WEIGHTS"] else ""
    results = [
        f"{folder}/{file}" for file in ("ensemble_weights.json", *(f"{maps}.npz" for maps in scope.maps))
    ]
    made_from = canonical({"members": members, "weights": settings.words("ENSEMBLE_WEIGHTS")})
    needs, after = book.record(f"{folder}/made_from.json", made_from, results)
    splits = path_text(scope.splits)
    if found:
        book.add(
            [found],
            [*oof, scope.splits, *needs],
            "tune_ensemble_weights",
            f"--inputs {' '.join(map(path_text, oof))}",
            f"--processed {path_text(settings.path('DATA', 'processed'))} --splits {splits} --out "
            f"{path_text(found)}",
            after=after,
        )
    flags = [f"--ensemble-weights {path_text(found)} --splits {splits}"] if found else []
    flags += ["--weights $(ensemble_weights)"] if settings["ENSEMBLE_WEIGHTS"] else []
    flags += [f"--members {' '.join(members)}"]
    for maps in scope.maps:
        average(
            book,
            scope.index,
            inputs[maps],
            f"{folder}/{maps}.npz",
            SUBSET[maps],
            *flags,
            needs=[found] if found else needs,
        )


def write_packed(book: Book, settings: Settings, experiment: Experiment) -> None:
    """Networks to pass on: a file a fold, and their card."""
    name, config = experiment.name, path_text(str(experiment.path))
    cv, card = settings.path("RUNS", name, "cv.json"), settings.path("PACKED", name, "README.md")
    trained = [settings.path("RUNS", name, f"fold_{fold}", "model.pt") for fold in settings.all_folds]
    book.add(
        [card],
        [cv, *trained],
        "make_weights",
        f"--checkpoints {' '.join(map(path_text, trained))}",
        f"--cv {path_text(cv)} --config {config} --out {path_text(card)}",
        *unseen_flag(settings, name),
    )


def unseen_flag(settings: Settings, name: str) -> list[str]:
    """The score on unseen sources for a card, where there is one."""
    unseen = settings.path("RUNS", "by_source", name, "unseen.json")
    return [f"--unseen {path_text(unseen)}"] if Path(unseen).is_file() else []


def write_packed_ensemble(book: Book, settings: Settings) -> None:
    """The card that makes an ensemble of packed experiments."""
    folder, card = settings.path("RUNS", "ensemble"), settings.path("PACKED", "ensemble.json")
    cards = [settings.path("PACKED", name, "README.md") for name in settings.chosen]
    members = " ".join(path_text(path.removesuffix("/README.md")) for path in cards)
    tuned = len(settings.chosen) > 1 and not settings["ENSEMBLE_WEIGHTS"]
    needs = [f"{folder}/cv.json", *cards, *([f"{folder}/ensemble_weights.json"] if tuned else [])]
    book.add(
        [card],
        needs if tuned else [],
        "pack_ensemble",
        f"--members {members} --cv {path_text(folder)}/cv.json",
        f"--ensemble-weights {path_text(folder)}/ensemble_weights.json --out {path_text(card)}",
        *unseen_flag(settings, "ensemble"),
    )
    if not tuned:
        book.rules[-1].recipe = fail(
            "an ensemble is packed with weights tuned out of fold: several MEMBERS, no ENSEMBLE_WEIGHTS"
        )
