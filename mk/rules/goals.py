"""What the settings make of phony targets: prerequisites, and values for their recipes."""

import os
from pathlib import Path

from rules.book import Book
from rules.settings import NO_HOLD_OUT, Settings
from rules.shipped import SUFFIX, run_name
from rules.text import RefusedError, nearest

ONE_NETWORK = {"summary", "export", "bioimageio", "kaggle-model"}
OF_CSV = {"score", "submit"}
"""They take a CSV that is there, of whatever name."""
OF_STAGE2 = {"data", "submission", "kaggle-notebook", *OF_CSV}
"""They follow SUBSET=stage2."""
OF_ALL_FOLDS = {"leaderboard", "weights", "kaggle-notebook", "unseen"}


def work_out(settings: Settings) -> dict[str, str]:
    """Paths that follow from several settings; settings without a value get their default."""
    values = settings.values
    csv_name = settings.experiment + (f"_{settings.label}" if settings.label else "")
    csv_name = run_name(values["WEIGHTS"]) if values["WEIGHTS"] else csv_name
    csv_name += settings.test_suffix
    values["MESSAGE"] = values["MESSAGE"] or csv_name
    values["MEMBERS"], values["FOLDS"] = " ".join(settings.chosen), " ".join(settings.folds)
    values["MODEL"] = values["MODEL"] or settings.chosen[0]
    fold = settings.folds[0] if settings.is_given("FOLD") else settings.all_folds[0]
    trained = settings.path("RUNS", values["MODEL"], f"fold_{fold}", "model.pt")
    shipped = settings.path("PACKED", values["MODEL"], f"fold_{fold}{SUFFIX}")
    use_shipped = not Path(trained).exists() and Path(shipped).exists()
    values["CHECKPOINT"] = values["CHECKPOINT"] or (shipped if use_shipped else trained)
    exported = find_exported(settings, values["CHECKPOINT"])
    if "finetune" in settings.goals and not values["OUT"]:
        values["OUT"] = f"{Path(values['SOURCE']).name}{SUFFIX}"
    return {
        "csv_name": csv_name,
        "csv": settings.path("SUBMISSIONS", f"{csv_name}.csv"),
        "test_index": f"{settings.processed}/index.csv",
        "exported": exported,
        "dir_exported": f"{os.path.dirname(exported)}/",
        "eda_table": f"{os.path.splitext(values['EDA'])[0]}.csv",
    }


def find_exported(settings: Settings, checkpoint: str) -> str:
    """Stem of a network's exports: beside its checkpoint, or among the runs for shipped weights."""
    place, ending = os.path.splitext(checkpoint)
    if ending != SUFFIX:
        return place
    return settings.path(
        "RUNS", run_name(os.path.dirname(checkpoint) or "weights"), os.path.basename(place), "model"
    )


def how_to_make(settings: Settings) -> str:
    """The command that makes the CSV of `make submit` and `score`; for a double-quoted recipe."""
    subset = " SUBSET=stage2" if settings.stage2 else ""
    if settings["WEIGHTS"]:
        came = Path(settings["WEIGHTS"].rstrip("/")).stem
        is_there = not settings.stage2 and Path(settings.path("SUBMISSIONS", f"{came}.csv")).is_file()
        other = (
            f", or take {settings['SUBMISSIONS']}/{came}.csv, which is there: EXP={came}" if is_there else ""
        )
        return f"make it first: make submission{subset}, with the same WEIGHTS={other}"
    if settings.experiment == "otsu":
        return f"make it first: make {settings['SUBMISSIONS']}/otsu.csv"
    folds = f" FOLDS='{settings['FOLDS']}'" if settings.label else ""
    return f"make it first: make submission EXP={settings.experiment}{folds}{subset}"


def check_together(settings: Settings) -> None:
    """Refuses settings that a goal cannot follow.

    Raises:
        RefusedError: with what to give instead.
    """
    goals = set(settings.goals)
    for setting in ("IMAGES", "OUT"):
        if "segment" in goals and not settings[setting]:
            raise RefusedError("segment: give IMAGES=<folder of images> OUT=<folder for results>")
    if "finetune" in goals and not settings.is_given("SOURCE"):
        raise RefusedError(
            "finetune: give SOURCE=<folder with images/ and labels/, or results with corrected/>"
        )
    if "external" in goals and not settings["SETS"]:
        raise RefusedError(
            "external: give SETS='bbbc039 tnbc nuinsseg', or folders or zips of images/ and labels/"
        )
    if settings["WEIGHTS"] and settings.is_given("EXP") and goals & {"submission", *OF_CSV}:
        raise RefusedError("give EXP= or WEIGHTS=, not both: the one is trained here, the other was")
    if settings.stage2:
        check_stage2(settings, goals)
    name = settings.experiment
    one_network = goals & ONE_NETWORK and not settings.is_given("MODEL") and not settings.is_given("CHECKPOINT")
    if settings.is_given("EXP") and name not in settings.experiments and not settings.is_screening:
        allowed = OF_CSV if name != "otsu" else OF_CSV | {"submission"}
        if one_network or (name != "ensemble" and goals - allowed):
            raise RefusedError(f"EXP={name} is no single network; there are: {' '.join(settings.experiments)}")
    whole = [
        goal for goal in settings.goals if goal.endswith((".csv", "/cv.json")) and settings.label not in goal
    ]
    whole += goals & OF_ALL_FOLDS
    if settings.some_folds and whole and not settings["WEIGHTS"]:
        raise RefusedError(
            f"{whole[0]} is of all folds; FOLD= and FOLDS= are for train, predict, submission, ablation"
        )
    if settings["FOLD"] == NO_HOLD_OUT and goals - {"train", *ONE_NETWORK}:
        raise RefusedError(
            "FOLD=all holds out no image, so that nothing can be scored: it is for train and export"
        )
    for name in settings.chosen if settings["FOLD"] == NO_HOLD_OUT else []:
        if settings.experiments[name].pseudo:
            raise RefusedError(f"FOLD=all: {name} needs pseudo-labels, which the networks of single folds make")
    for name in settings.chosen if "unseen" in goals else []:
        if settings.experiments[name].pseudo:
            raise RefusedError(f"unseen: {name} learns from pseudo-labels of test images; choose another EXP=")
    checkpoint = settings.given.get("CHECKPOINT")
    if checkpoint and not Path(checkpoint).exists() and f"{settings['RUNS']}/" not in checkpoint:
        raise RefusedError(f"CHECKPOINT={checkpoint}: no such file{near_checkpoint(settings, checkpoint)}")


def check_stage2(settings: Settings, goals: set[str]) -> None:
    """Refuses goals that do not use the final set, and settings that its rules do not follow."""
    others = [goal for goal in settings.goals if goal not in OF_STAGE2 and "/" not in goal]
    if others:
        raise RefusedError(f"SUBSET=stage2 is for {', '.join(sorted(OF_STAGE2))}; not for {others[0]}")
    if settings["WEIGHTS"]:
        return
    if "kaggle-notebook" in goals:
        raise RefusedError("SUBSET=stage2: the notebook that trains submits stage 1; give WEIGHTS= as well")
    if settings.some_folds:
        raise RefusedError(
            "SUBSET=stage2 is predicted by the networks of all folds; leave FOLD= and FOLDS= out"
        )


def near_checkpoint(settings: Settings, checkpoint: str) -> str:
    places = [
        Path(settings["RUNS"]).glob("*/fold_*/model.pt"),
        Path(settings["PACKED"]).glob(f"*/*{SUFFIX}"),
    ]
    return nearest(checkpoint, [str(path) for place in places for path in place])


def add_goals(book: Book, settings: Settings, csv: str) -> None:
    """The prerequisites of the phony targets, and of the leaderboard."""
    runs, chosen = settings["RUNS"], settings.chosen
    places = [f"{runs}/{name}/fold_{fold}" for name in chosen for fold in settings.folds]
    wholes = [f"{runs}/{name}" for name in chosen]
    book.goals["train"] = [f"{place}/model.pt" for place in places]
    predicted = places if settings.some_folds else wholes
    book.goals["predict"] = [f"{place}/{maps}.npz" for place in predicted for maps in ("oof", "test")]
    book.goals["submission"] = [csv]
    alone = settings.is_given("EXP") and settings.experiment != "ensemble"
    card = f"{settings.experiment}/README.md" if alone else "ensemble.json"
    book.goals["weights"] = [settings.path("PACKED", card)]
    scored = ["otsu", *chosen, *(["ensemble"] if len(chosen) > 1 else [])]
    by_source = [*chosen, *(["ensemble"] if len(chosen) > 1 else [])]
    book.goals["unseen"] = [f"{runs}/by_source/{name}/unseen.json" for name in by_source]
    board = settings.path("SUBMISSIONS", "README.md")
    book.leads["leaderboard"] = [board]
    book.goals[board] = [f"{runs}/{name}/cv.json" for name in scored]
    book.goals[board] += [settings.path("SUBMISSIONS", f"{name}.csv") for name in scored]
    book.leads["compare"] = [settings.path("COMPARISONS", "compare.csv")]
    book.leads["learning-curve"] = [settings.path("COMPARISONS", "learning_curve.csv")]
    book.leads["ablation"] = [settings.path("ABLATION", "README.md")]
    book.leads |= {name: [settings["CHECKPOINT"]] for name in ("export", "bioimageio", "kaggle-model")}
