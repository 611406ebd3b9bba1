"""groundup compare [RECIPE]"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from groundup._check import unknown
from groundup.commands._options import (
    RecipeFlags,
    parse,
    recipe_named,
    refuse_ignored_residual,
)
from groundup.commands._table import print_table
from groundup.experiment import compare, plan
from groundup.experiment.display import Display
from groundup.report import comparison, read_runs, write_report
from groundup.report.words import headline
from groundup.train.recipe_file import Variants, expand


@dataclass(frozen=True)
class Compare:
    """Train the variants of a recipe side by side: same initial weights, same batches.

    Without [[variants]] in the recipe these are `baseline` (no residual warmup) and the recipe as
    it is. Ends with a table and report.html. Started again, it goes on where it was stopped.

    Any field of the recipe can be changed by its flag; --steps, --batch and --device are short for
    --train.steps, --train.batch and --train.device.
    """

    recipe: RecipeFlags
    seeds: tuple[int, ...] = ()
    """Several seeds, each trained in every variant; the recipe's own unless given."""

    only: tuple[str, ...] = ()
    """Some of the variants, by their names; all unless given."""

    out: Path | None = None
    """Where the runs and the report go; runs/NAME unless given."""


def main(arguments: list[str]) -> int:
    file, rest = recipe_named(arguments, default="quickstart")
    named = file.recipe
    if file.axes:
        raise ValueError(f"this recipe has a [sweep] ({', '.join(file.axes)}): say groundup sweep")
    options = parse(Compare(named), "compare [RECIPE]", rest)
    recipe = options.recipe
    if recipe.variant:
        raise ValueError(f"variant={recipe.variant!r}: compare names the variants itself")
    if options.seeds and recipe.train.seed != named.train.seed:
        raise ValueError("train.seed would be ignored, since seeds are given: say only --seeds")
    refuse_ignored_residual(file, recipe)
    # Only now: torch takes seconds, which --help and a wrong flag need not wait for.
    from groundup.commands._parallel import console, joined, prepared

    world = joined(recipe)
    out = options.out or Path("runs") / recipe.name
    variants = _chosen(expand(recipe, file.changes), options.only)
    runs = plan(variants, options.seeds or (recipe.train.seed,), out)
    prepared(recipe, runs, world)
    with Display(runs, console(world)) as display:
        compare(runs, display.watch, shlex.join(["groundup", "compare", *arguments]))
    if not world.main:
        return 0
    folders = [run.folder for run in runs]
    result = comparison(read_runs(folders))
    page = write_report(folders, out / "report.html", title=recipe.name)
    display.console.print()
    print_table(display.console, result)
    verdict, details = headline(result)
    display.console.print("\n" + " ".join([verdict, *details]), highlight=False, markup=False)
    display.console.print(f"Report: {page}", highlight=False, markup=False)
    return 0


def _chosen(variants: Variants, only: tuple[str, ...]) -> Variants:
    """Those that are named, in the recipe's order."""
    for name in only:
        if name not in variants:
            raise unknown("only", name, variants)
    if only and len(set(only)) < 2:
        raise ValueError(
            f"only={only[0]!r} is not valid: a comparison needs two "
            f"(groundup train RECIPE --variant {only[0]} trains one)"
        )
    return {name: recipe for name, recipe in variants.items() if name in only or not only}
