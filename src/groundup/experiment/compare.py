"""Many runs from one recipe: the same seeds and data, only what a variant changes differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from groundup.train.progress import Watcher
from groundup.train.recipe import Recipe
from groundup.train.recipe_file import Variants


@dataclass(frozen=True)
class Planned:
    """One run of a comparison."""

    variant: str
    recipe: Recipe
    folder: Path

    @property
    def seed(self) -> int:
        return self.recipe.train.seed


def folder_of(recipe: Recipe, out: Path) -> Path:
    """Where a variant is trained: OUT/VARIANT/seed-N."""
    return out / recipe.variant / f"seed-{recipe.train.seed}"


def plan(variants: Variants, seeds: Sequence[int], out: Path) -> list[Planned]:
    """Every variant with every seed, seed by seed, each in the folder OUT/VARIANT/seed-N.

    Runs of one seed share the initial weights (where shapes allow) and the batches.

    Raises:
        ValueError: if there is nothing to compare, or a seed is given twice.
    """
    if len(variants) < 2:
        raise ValueError(
            "there is nothing to compare: give residual.schedule (not 'none') or [[variants]]"
        )
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={list(seeds)!r} is not valid: give each seed once, at least one")
    seeded = (
        (name, replace(recipe, train=replace(recipe.train, seed=seed)))
        for seed in seeds
        for name, recipe in variants.items()
    )
    return [Planned(name, recipe, folder_of(recipe, out)) for name, recipe in seeded]


def compare(
    runs: Sequence[Planned], watcher: Callable[[Planned], Watcher], command: str = ""
) -> None:
    """Train all of them, one after the other. A comparison that was stopped goes on."""
    from groundup.train import train  # with torch: who only plans does without

    for run in runs:
        train(run.recipe, run.folder, watcher(run), command)
