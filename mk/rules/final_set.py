"""Rules of the competition's final set, SUBSET=stage2, for experiments that are trained here.

Networks and post-processing are those of all folds. None of them depends on these images.
"""

from rules.book import Book
from rules.configs import Experiment
from rules.experiments import MACHINE, average
from rules.settings import Settings
from rules.text import path_text


def write_final_set(book: Book, settings: Settings) -> None:
    """Maps and submissions of the chosen experiments and their ensemble."""
    for name in settings.chosen:
        write_maps(book, settings, settings.experiments[name])
    write_averaged(book, settings)
    processed, maps = path_text(settings.processed), settings.test_maps
    for name in dict.fromkeys([*settings.chosen, "ensemble"]):
        folder = settings.path("RUNS", name)
        csv = settings.path("SUBMISSIONS", f"{name}{settings.test_suffix}.csv")
        book.add(
            [csv],
            [f"{folder}/{maps}", f"{folder}/cv.json"],
            "make_submission",
            f"--maps {path_text(folder)}/{maps} --cv {path_text(folder)}/cv.json",
            f"--processed {processed} --out {path_text(csv)}",
        )


def write_maps(book: Book, settings: Settings, experiment: Experiment) -> None:
    """The maps by the network of each fold, and their mean."""
    folder, processed, maps = settings.path("RUNS", experiment.name), settings.processed, settings.test_maps
    index = f"{processed}/index.csv"
    places = [f"{folder}/fold_{fold}" for fold in settings.all_folds]
    for place in places:
        book.add(
            [f"{place}/{maps}"],
            [f"{place}/model.pt", f"{folder}/prediction.json", index],
            "predict",
            f"--checkpoint {path_text(place)}/model.pt --config {path_text(str(experiment.path))}",
            f"--processed {path_text(processed)} --test {path_text(place)}/{maps} {MACHINE}",
        )
    average(book, index, [f"{place}/{maps}" for place in places], f"{folder}/{maps}", "test")


def write_averaged(book: Book, settings: Settings) -> None:
    """The maps of the ensemble, with its weights tuned out of fold unless they are given."""
    folder, given = settings.path("RUNS", "ensemble"), settings["ENSEMBLE_WEIGHTS"]
    tuned = len(settings.chosen) > 1 and not given
    weights = f"{folder}/ensemble_weights.json" if tuned else f"{folder}/made_from.json"
    flags = [f"--ensemble-weights {path_text(weights)}"] if tuned else []
    flags += ["--weights $(ensemble_weights)"] if given else []
    inputs = [settings.path("RUNS", name, settings.test_maps) for name in settings.chosen]
    index, out = f"{settings.processed}/index.csv", f"{folder}/{settings.test_maps}"
    average(book, index, inputs, out, "test", *flags, needs=[weights])
