"""Command line of the generator: checks settings, writes rules, says what is to come."""

import argparse
import hashlib
import sys
from pathlib import Path

from rules.book import Book, write_files, write_record
from rules.experiments import write_experiments, write_packed_ensemble
from rules.final_set import write_final_set
from rules.goals import add_goals, check_together, how_to_make, work_out
from rules.old_names import adopt_old_results
from rules.plan import announce, check_goals, read_targets
from rules.screening import write_screening
from rules.settings import Settings
from rules.shipped import write_shipped
from rules.studies import write_studies
from rules.text import RefusedError, path_text, shell_text, variable_text


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--goal", action="append", default=[], help="of make's command line; several times")
    parser.add_argument("--setting", action="append", default=[], help="NAME=value of make's command line")
    parser.add_argument("--record", nargs=2, help="a file of wanted records, and the one to write")
    asked = parser.parse_args(arguments)
    try:
        if asked.record:
            write_record(Path(asked.record[0]), asked.record[1])
        else:
            print(write_rules(dict(one.split("=", 1) for one in asked.setting), asked.goal))
    except (RefusedError, OSError) as refused:
        # make shows what is printed where it asked for the rules, but not in a recipe
        print(refused, file=sys.stderr if asked.record else sys.stdout)
        return 1
    return 0


def write_rules(given: dict[str, str], goals: list[str]) -> Path:
    """Checks settings and goals, and writes the rules.

    Raises:
        RefusedError: an error that a user can fix.
    """
    settings, book = Settings(given, goals), Book()
    adopt_old_results(Path(settings["RUNS"]))
    write_experiments(book, settings)
    write_packed_ensemble(book, settings)
    if settings["WEIGHTS"]:
        book.chapter("trained weights")
        write_shipped(book, settings)
    elif settings.stage2:
        book.chapter("the final set")
        write_final_set(book, settings)
    write_studies(book, settings)
    check_together(settings)
    paths = work_out(settings)
    paths |= write_screening(book, settings)
    add_goals(book, settings, paths["csv"])
    plain = {name.lower(): value for name, value in settings.values.items()} | paths
    targets = read_targets(plain)
    check_goals(book, settings, targets)
    message = announce(book, goals, settings)
    if message:
        print(message, file=sys.stderr)
    digest = hashlib.sha256(
        repr((sorted(given.items()), settings["KAGGLE_USER"], sys.executable)).encode()
    ).hexdigest()
    name = f"rules_{digest[:8]}"
    variables = [f"{key} := {path_text(path)}" for key, path in paths.items()]
    variables.append(f"how_to_make_csv := {how_to_make(settings)}")
    variables.append(
        f"record := {variable_text(sys.executable)} -ES mk/write_rules.py --record .rules/{name}.json"
    )
    given_text = (
        " ".join(f"{key}={shell_text(value)}" for key, value in sorted(given.items())) or "the defaults"
    )
    header = [
        f"# Written by mk/write_rules.py for {given_text}. Not to be edited.",
        "",
        *settings.lines(),
        *variables,
    ]
    return write_files(
        name,
        book.text(header, [target for target in targets if "/" in target or "." in target]),
        book.records,
    )
