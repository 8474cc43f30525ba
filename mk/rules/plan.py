"""The goals of the command line: whether they exist, and how many trainings they take."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from rules.book import Book, Rule
from rules.effort import describe_effort
from rules.settings import Settings
from rules.text import RefusedError, nearest

HAND_WRITTEN = Path("mk")
TARGET = re.compile(r"^([^\s#.][^\n=]*?) ?&?:(?!=)", re.MULTILINE)
VARIABLE = re.compile(r"\$\((\w+)\)")
SIZES = {"bbbc": " (83 MB)", "kaggle": " (83 MB)"}
"""What the download of a SOURCE comes to."""
SIZE_OF_STAGE2 = " (290 MB)"
MANY = 3
"""Networks whose predictions take more than a moment."""
LISTED = 20
"""Trainings named one by one; of more only the experiments are."""


def read_targets(values: dict[str, str]) -> list[str]:
    """Targets of the hand-written rules, with the variables in their names replaced by values."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(HAND_WRITTEN.glob("*.mk")))
    found = [target for line in TARGET.findall(text) for target in line.split()]
    return [VARIABLE.sub(lambda match: values.get(match[1], match[0]), target) for target in found] + ["help"]


def check_goals(book: Book, settings: Settings, targets: Iterable[str]) -> None:
    """Refuses goals that no rule makes and that are no files, with the nearest that there is."""
    known = {*targets, *(target for rule in book.rules for target in rule.targets)}
    for goal in settings.goals:
        goal = goal.removeprefix("./")
        for name, experiment in settings.experiments.items():
            if experiment.fault and name in (Path(goal).stem, *Path(goal).parts):
                raise RefusedError(experiment.fault)
        if goal not in known and not os.path.exists(goal):
            raise RefusedError(f"{goal}: nothing makes it{near_goal(goal, known)}")


def near_goal(goal: str, known: set[str]) -> str:
    """The nearest target: of all, or if none is near, of its folder or the phony ones."""
    hint = nearest(goal, known, 0.8)
    if "did you mean" in hint:
        return hint
    return nearest(goal, [target for target in known if "/" not in target and "." not in target], 0.5)


def announce(book: Book, goals: Iterable[str], settings: Settings) -> str:
    """What is to come: trainings, how long they took before, downloads; empty without any."""
    plan = Plan(book)
    trainings = plan.trainings(goals)
    is_there = Path(
        settings.path("DATA", *(["stage2"] if settings.stage2 else []), "raw", "manifest.csv")
    ).exists()
    size = SIZES.get(settings["SOURCE"], "")
    source = f"SOURCE={settings['SOURCE']}{SIZE_OF_STAGE2 if size and settings.stage2 else size}"
    images = "" if is_there else f"; the images first, {source}"
    if not trainings:
        networks = plan.predictions
        of_images = " of the 3,019 images of stage 2" if settings.stage2 else ""
        many = networks >= (1 if settings.stage2 else MANY)
        number = "1 network" if networks == 1 else f"{networks} networks"
        return f"no training; predictions{of_images} by {number}{images}" if many else ""
    folds: dict[str, list[str]] = {}
    models: dict[str, list[str]] = {}
    for rule in trainings:
        name, fold = rule.training.split(" ")
        folds.setdefault(name, []).append(fold)
        models.setdefault(name, []).append(rule.targets[0])
    listed = ", ".join(
        f"{name} {' '.join(some)}" if len(trainings) <= LISTED else name for name, some in folds.items()
    )
    number = "1 training" if len(trainings) == 1 else f"{len(trainings)} trainings"
    effort = describe_effort(settings, models)
    return f"{number} to come: {listed}{images}" + (f"\n  took before: {effort}" if effort else "")


class Plan:
    """What make is going to do, as its own rules of what is older have it."""

    def __init__(self, book: Book) -> None:
        self.makers: dict[str, Rule] = {target: rule for rule in book.rules for target in rule.targets}
        self.leads = book.goals | book.leads
        self.stale: dict[str, bool] = {}
        self.found: list[Rule] = []
        self.predictions = 0

    def trainings(self, goals: Iterable[str]) -> list[Rule]:
        """The rules of the trainings that will be run, in their order."""
        for goal in goals:
            self.visit(goal.removeprefix("./"))
        return self.found

    def visit(self, target: str) -> bool:
        """Whether the target will be made, after all that it needs was visited."""
        if target not in self.stale:
            self.stale[target] = False  # no endless walk through a circle
            self.stale[target] = self._find_stale(target)
        return self.stale[target]

    def _find_stale(self, target: str) -> bool:
        rule = self.makers.get(target)
        if rule is None:
            return any([self.visit(need) for need in self.leads.get(target, [])]) or not os.path.exists(target)
        for path in rule.after:
            self.visit(path)
        stale = any([self.visit(need) for need in rule.needs]) or rule.changed
        stale = stale or not all(map(os.path.exists, rule.targets)) or self._is_older(rule)
        if stale and target == rule.targets[0]:
            self.found += [rule] if rule.training else []
            self.predictions += rule.script == "predict"
        return stale

    @staticmethod
    def _is_older(rule: Rule) -> bool:
        oldest = min(os.stat(target).st_mtime_ns for target in rule.targets)
        return any(os.stat(need).st_mtime_ns > oldest for need in rule.needs)
