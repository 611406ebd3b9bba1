"""groundup train RECIPE"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from groundup.commands._options import RecipeFlags, parse, recipe_named, variant_named
from groundup.experiment import Planned, folder_of
from groundup.experiment.display import Display


@dataclass(frozen=True)
class Train:
    """Train one run of a recipe. Started again, it goes on where it was stopped.

    Several processes: torchrun --nproc-per-node N -m groundup train RECIPE.

    Of a recipe with variants or a sweep it is the recipe itself, or the one that --variant names,
    in the folder where `groundup compare` and `groundup sweep` train it: they take it over.

    Any field of the recipe can be changed by its flag; --steps, --batch and --device are short for
    --train.steps, --train.batch and --train.device.
    """

    recipe: RecipeFlags
    out: Path | None = None
    """The run's folder; runs/NAME unless given, with --variant runs/NAME/VARIANT/seed-SEED."""

    change_rate: bool = False
    """Go on with another [rate] or --steps than the run in the folder has, without a jump."""


def main(arguments: list[str]) -> int:
    named, rest = recipe_named(arguments)
    own, rest = variant_named(named, rest)
    options = parse(Train(own), "train RECIPE", rest)
    recipe = options.recipe
    recipe = replace(recipe, variant=recipe.variant or recipe.residual.schedule)
    # Only now: torch takes seconds, which --help and a wrong flag need not wait for.
    from groundup.commands._parallel import console, joined, prepared
    from groundup.train import train

    world = joined(recipe)
    out = options.out or Path("runs") / recipe.name
    if options.out is None and own is not named.recipe:
        out = folder_of(recipe, out)
    run = Planned(recipe.variant, recipe, out)
    prepared(recipe, [run], world)
    command = shlex.join(["groundup", "train", *arguments])
    with Display([run], console(world)) as display:
        summary = train(recipe, out, display.watch(run), command, change_rate=options.change_rate)
    perplexity = summary["eval_perplexity"]
    said = "beyond e^700" if perplexity is None else f"{perplexity:.2f}"
    display.console.print(
        f"held-out loss {summary['eval_loss']:.4f}, perplexity {said} after {summary['steps']} "
        f"updates in {summary['wall_seconds']:.0f} s: {out}",
        highlight=False,
        markup=False,
    )
    return 0
