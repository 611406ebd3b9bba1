"""Commands that torchrun may have started in several processes: the first one speaks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

from rich.console import Console

from groundup.data import prepare_all, show_progress
from groundup.experiment import Planned
from groundup.train import setup
from groundup.train.parallel import start
from groundup.train.recipe import Recipe
from groundup.train.world import World


def joined(recipe: Recipe) -> World:
    """The world of this process.

    Raises:
        ValueError: if the recipe's device is not there, or does not do for so many processes.
    """
    return start.join(recipe.parallel, start.pick_device(recipe.train.device))


def console(world: World) -> Console:
    """What is printed to: nothing is printed but by one process."""
    return Console(quiet=not world.main)


def prepared(recipe: Recipe, runs: Sequence[Planned], world: World) -> None:
    """Prepare the recipe's data where anyone sees how far it is; one process of a machine first.

    Raises:
        ValueError: before that, if one of the runs cannot be.
    """
    for run in runs:
        world.together(partial(setup.check, run.recipe, world.size, run.folder))

    def work() -> bool:
        with show_progress() if world.main else nullcontext() as progress:
            prepare_all(recipe.data, progress=progress)
        return True

    world.in_turn(work)
