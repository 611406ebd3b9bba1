"""groundup schedule plot | table"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from groundup._check import count, unknown
from groundup.commands._options import (
    RecipeFlags,
    parse,
    recipe_named,
    refuse_ignored_residual,
    variant_named,
)
from groundup.experiment.preview import Preview, previews
from groundup.report.plan import text as plan_text
from groundup.train.recipe import Recipe
from groundup.train.recipe_file import RecipeFile, expand, sweep

_USAGE = """groundup schedule plot [RECIPE] [--out FILE]   rate, weight decay and α, drawn
groundup schedule table [RECIPE]               the same in numbers

What a recipe will do, and advice on it, before a run: nothing is trained.
`groundup schedule plot --help` tells more."""
_FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Plot:
    """What rate, weight decay and α of a recipe, its variants or its sweep will be, or of the one
    that --variant names. Drawn in the terminal or, with --out, as a figure; ends with advice on the
    lengths. Nothing is trained.

    Any field of the recipe can be changed by its flag; --steps is short for --train.steps.
    """

    recipe: RecipeFlags
    out: Path | None = None
    """A figure instead: .png, .svg or .pdf."""

    until: int | None = None
    """Only the first updates."""

    width: int | None = None
    """Characters in a line; those of the terminal unless given."""


@dataclass(frozen=True)
class Table:
    """What rate, weight decay and α of a recipe, its variants or its sweep, or of the one that
    --variant names, will be at the updates at which something begins or ends, and advice on the
    lengths. Nothing is trained.

    A step is the number of completed updates: the first update sees 0. Any field of the recipe can
    be changed by its flag; --steps is short for --train.steps.
    """

    recipe: RecipeFlags
    every: int | None = None
    """Every so many updates instead."""

    csv: Path | None = None
    """A file (- for the terminal) for the same as comma-separated values, with every layer."""


def main(arguments: list[str]) -> int:
    action, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if action in ("-h", "--help"):
        print(_USAGE)
        return 0
    if action not in _ACTIONS:
        raise unknown("action", action, _ACTIONS)
    file, rest = recipe_named(rest, default="quickstart")
    own, rest = variant_named(file, rest)
    if own is not file.recipe:
        file = RecipeFile(own)
    return _ACTIONS[action](file, rest)


def _plot(file: RecipeFile, arguments: list[str]) -> int:
    options = parse(Plot(file.recipe), "schedule plot [RECIPE]", arguments)
    found = _previews(file, options.recipe)
    until = None if options.until is None else count("until", options.until)
    width = _width() if options.width is None else count("width", options.width, least=40)
    if options.out is None:
        print(plan_text.heading(found) + "\n")
        print(plan_text.pictures(found, until, width) + "\n")
        print(plan_text.advice(found, width))
        return 0
    if options.width is not None:
        raise ValueError(f"width={options.width} would be ignored: it is that of the terminal")
    if options.out.suffix not in _FORMATS:
        raise ValueError(f"out={str(options.out)!r} is not valid: end it in {', '.join(_FORMATS)}")
    from groundup.report import plan

    options.out.parent.mkdir(parents=True, exist_ok=True)
    plan.figure(found, until).savefig(options.out, dpi=200)
    print(plan_text.advice(found, width))
    print(options.out)
    return 0


def _table(file: RecipeFile, arguments: list[str]) -> int:
    options = parse(Table(file.recipe), "schedule table [RECIPE]", arguments)
    found = _previews(file, options.recipe)
    every = None if options.every is None else count("every", options.every)
    if options.csv == Path("-"):
        plan_text.write_csv(found, every, sys.stdout)
        return 0
    if options.csv is not None:
        options.csv.parent.mkdir(parents=True, exist_ok=True)
        with options.csv.open("w", encoding="utf-8") as out:
            plan_text.write_csv(found, every, out)
        print(options.csv)
        return 0
    print(plan_text.heading(found) + "\n")
    print(plan_text.tables(found, every) + "\n")
    print(plan_text.advice(found, _width()))
    return 0


_ACTIONS = {"plot": _plot, "table": _table}


def _previews(file: RecipeFile, recipe: Recipe) -> list[Preview]:
    """The recipe, or its variants, or the points of its sweep."""
    refuse_ignored_residual(file, recipe)
    variants = expand(recipe, file.changes) if file.changes else {}
    if not file.axes:
        return previews(variants or {recipe.name: recipe})
    points = sweep(variants or {"": recipe}, file.axes)
    return previews({name: point.recipe for name, point in points.items()})


def _width() -> int:
    # Longer lines are hard to read.
    return max(40, min(120, shutil.get_terminal_size().columns))
