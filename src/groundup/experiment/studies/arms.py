"""The arms of a study: what is trained with several seeds, and by which program."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from groundup._check import unknown
from groundup.train import recipe_file, toml
from groundup.train.recipe import Recipe


class Arm(Protocol):
    """Something that is trained with one seed at a time, in a process of its own."""

    @property
    def suffix(self) -> str:
        """How the name of its configuration's file ends."""

    @property
    def value(self) -> str:
        """What of its summary.json is compared, lower is better."""

    @property
    def peak(self) -> float:
        """Its peak rate, before any multiple."""

    def configuration(self, variant: str, peak: float, seed: int) -> str:
        """The text of the file that says what is trained."""

    def command(self, file: str, folder: str) -> list[str]:
        """Trains what `file` says in `folder`: a process that goes on where it was stopped, leaves
        a summary.json at its end, and exits as `groundup train` does."""


Arms = Callable[[Mapping[str, Any]], Mapping[str, Arm]]
"""The change that a scale makes to a recipe → the arms by name."""


@dataclass(frozen=True)
class RecipeArm:
    """A variant of a recipe, trained by `groundup train`."""

    recipe: Recipe
    suffix: str = ".toml"
    value: str = "eval_loss"

    @property
    def peak(self) -> float:
        return self.recipe.rate.peak

    def configuration(self, variant: str, peak: float, seed: int) -> str:
        return toml.dumps(
            replace(
                self.recipe,
                variant=variant,
                rate=replace(self.recipe.rate, peak=peak),
                train=replace(self.recipe.train, seed=seed),
            )
        )

    def command(self, file: str, folder: str) -> list[str]:
        return [sys.executable, "-m", "groundup", "train", file, "--out", folder]


def of_recipe(name: str, only: Mapping[str, str] | None = None) -> Arms:
    """Arms that are the variants of a shipped recipe, and the points of its [sweep] if it has one.

    Args:
        name: of the recipe.
        only: what the study calls an arm → the variant; unless given, all of them by their names.

    Where a scale changes the number of updates, lengths of residual warmup that the recipe says in
    updates are multiplied as it is.
    """

    def arms(change: Mapping[str, Any]) -> dict[str, Arm]:
        here = recipe_file.read(recipe_file.find(name))
        file = recipe_file.changed(here, change)
        variants = recipe_file.expand(file.recipe, file.changes)
        times = file.recipe.train.steps / here.recipe.train.steps
        variants = {variant: _stretched(one, times) for variant, one in variants.items()}
        found = {k: point.recipe for k, point in recipe_file.sweep(variants, file.axes).items()}
        names = only or {variant: variant for variant in found}
        for variant in names.values():
            if variant not in found:
                raise unknown("variant", variant, found)
        return {arm: RecipeArm(found[variant]) for arm, variant in names.items()}

    return arms


def _stretched(recipe: Recipe, times: float) -> Recipe:
    """Its lengths of residual warmup in updates, multiplied."""
    if times == 1:
        return recipe
    residual = recipe.residual

    def longer(updates: float | None) -> float | None:
        return None if updates is None else updates * times

    return replace(
        recipe,
        residual=replace(
            residual, T=longer(residual.T), S=longer(residual.S), total=longer(residual.total)
        ),
    )
