"""The shipped recipes, and every run that they stand for."""

from __future__ import annotations

import functools
from pathlib import Path

from groundup.train import recipe_file
from groundup.train.recipe import Recipe

FOLDER = Path(__file__).parents[2] / "recipes"
NAMES = sorted(
    path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.toml")
)


@functools.cache
def file(name: str) -> recipe_file.RecipeFile:
    return recipe_file.read(recipe_file.find(name))


@functools.cache
def runs(name: str) -> dict[str, Recipe]:
    """Every variant and every point of the sweep, as compare and sweep would train them."""
    found = file(name)
    variants = recipe_file.expand(found.recipe, found.changes) or {"": found.recipe}
    if not found.axes:
        return variants
    return {key: point.recipe for key, point in recipe_file.sweep(variants, found.axes).items()}
