"""groundup sweep RECIPE"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from groundup.commands._options import RecipeFlags, parse, recipe_named
from groundup.experiment import plan
from groundup.experiment.display import Display
from groundup.experiment.sweep import Pivot, mean, parse_axes, run_sweep, write_csv
from groundup.report import write_report
from groundup.report.words import number
from groundup.train.recipe import Recipe
from groundup.train.recipe_file import Axes, expand, sweep
from groundup.train.toml import differences


@dataclass(frozen=True)
class Sweep:
    """Train a grid: every variant of a recipe with every combination of some fields' values.

    The grid is the recipe's [sweep] table, or --axes. Ends with a table, sweep.csv and report.html.
    Started again, it goes on where it was stopped; a run that diverges does not stop the others.

    Any field of the recipe can be changed by its flag; --steps, --batch and --device are short for
    --train.steps, --train.batch and --train.device.
    """

    recipe: RecipeFlags
    axes: tuple[str, ...] = ()
    """The grid instead of the recipe's: rate.warmup=0,0.05,0.2 optimizer.name=adamw,lion …"""

    seeds: tuple[int, ...] = ()
    """Several seeds, each trained at every point; the recipe's own unless given."""

    out: Path | None = None
    """Where the runs and the results go; runs/NAME unless given."""

    list: bool = False
    """Only say what would be trained."""


def main(arguments: list[str]) -> int:
    file, rest = recipe_named(arguments)
    options = parse(Sweep(file.recipe), "sweep RECIPE", rest)
    recipe = options.recipe
    axes = parse_axes(options.axes) if options.axes else file.axes
    _refuse_what_is_ignored(file.recipe, recipe, axes)
    variants = expand(recipe, file.changes) if file.changes else {"": recipe}
    if not axes and not file.changes:
        raise ValueError("there is nothing to sweep: the recipe has no [sweep], and no --axes")
    points = sweep(variants, axes)
    out = options.out or Path("runs") / recipe.name
    seeds = options.seeds or (recipe.train.seed,)
    runs = plan({name: point.recipe for name, point in points.items()}, seeds, out)
    if options.list:
        print("\n".join(f"{run.folder}" for run in runs))
        return 0
    # Only now: torch takes seconds, which --help and a wrong flag need not wait for.
    from groundup.commands._parallel import console, joined, prepared

    world = joined(recipe)
    prepared(recipe, runs, world)
    with Display(runs, console(world)) as display:
        command = shlex.join(["groundup", "sweep", *arguments])
        results = run_sweep(runs, points, display.watch, command)
    if not world.main:
        return 0
    write_csv(results, axes, out / "sweep.csv")
    display.console.print()
    _print_table(display.console, Pivot.of(results, axes))
    print(out / "sweep.csv")
    print(write_report([run.folder for run in runs], out / "report.html", title=recipe.name))
    return 0


def _refuse_what_is_ignored(named: Recipe, recipe: Recipe, axes: Axes) -> None:
    if "train.seed" in axes:
        raise ValueError("sweep.train.seed is not valid: seeds are said with --seeds")
    if ignored := sorted(axes.keys() & differences(named, recipe).keys()):
        raise ValueError(f"what is said of {', '.join(ignored)} would be ignored: the sweep has it")


def _print_table(console: Console, pivot: Pivot) -> None:
    """Held-out loss, the least of each row marked; several seeds are averaged."""
    wide = Console(file=console.file, width=max(console.width, 160), highlight=False)
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    table.add_column("held-out loss", no_wrap=True)
    for value in pivot.columns:
        heading = f"{pivot.heading} {value}".strip()
        table.add_column(heading, justify="right", no_wrap=True)
    for name, cells in pivot.rows.items():
        means = [mean(losses) for losses in cells]
        least = min((loss for loss in means if loss is not None), default=None)
        said = [
            "diverged" if loss is None else number(loss, 4) + (" *" if loss == least else "  ")
            for loss in means
        ]
        table.add_row(" ".join(filter(None, name)) or "recipe", *said)
    wide.print(table)
    seeds = max(len(losses) for cells in pivot.rows.values() for losses in cells)
    wide.print("* the least of its row" + (f"; means over {seeds} seeds" if seeds > 1 else ""))
