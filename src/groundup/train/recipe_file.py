"""A recipe's file: the recipe, the variants of it to be compared, the axes of a sweep."""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from groundup._check import unknown
from groundup.model.resolution import ready_for
from groundup.schedules import depth
from groundup.train.recipe import NAME, NAME_RULE, Recipe
from groundup.train.toml import build, build_model, flat, plain

Variants = dict[str, Recipe]
Change = Mapping[str, Any]
"""One [[variants]] entry: a name, and the tables in which the variant differs."""
Axes = dict[str, list[Any]]
"""[sweep]: the values that each of these fields takes, by its dotted name."""


@dataclass(frozen=True)
class RecipeFile:
    """What a file holds."""

    recipe: Recipe
    changes: list[Change] = field(default_factory=list)
    axes: Axes = field(default_factory=dict)


def find(name: str) -> Path:
    """The path of a recipe: a TOML file, or the name of one that is shipped ("quickstart").

    Raises:
        ValueError: if there is none; the message lists the shipped ones.
    """
    if Path(name).is_file():
        return Path(name)
    root = _shipped()
    shipped = {
        path.relative_to(root).with_suffix("").as_posix(): path
        for path in sorted(root.rglob("*.toml"))
    }
    if name in shipped:
        return shipped[name]
    raise unknown("recipe", name, [*shipped, "any path to a .toml file"])


def read(path: Path) -> RecipeFile:
    """The recipe of a file, with the [[variants]] and the [sweep] that it names.

    Raises:
        ValueError: naming the file, the key or field, its value and what is valid.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    try:
        changes, axes = tables.pop("variants", []), flat(tables.pop("sweep", {}))
        recipe = build(tables)
        sweep(expand(recipe, changes) or {"": recipe}, axes)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    return RecipeFile(recipe, changes, axes)


def changed(file: RecipeFile, change: Mapping[str, Any]) -> RecipeFile:
    """The file with a change of its recipe, merged as that of a variant is; the variants and the
    [sweep] stay."""
    return replace(file, recipe=build(_merged(plain(file.recipe), change)))


def expand(recipe: Recipe, changes: Sequence[Change]) -> Variants:
    """The variants that are compared: the recipe with each change made to it.

    A change is merged into the recipe, with four exceptions: a length of residual warmup replaces
    the recipe's own, since the ways to say it exclude each other; so does a held-out text in [data]
    the share of the source that is held out; a [model] with a preset replaces the recipe's, and so
    does one with hf (but for z_loss); an [optimizer] with a name leaves of the recipe's only
    weight_decay and clip.

    Without changes there are two variants: `baseline` (no residual warmup) and the recipe as it is,
    called by its schedule. A recipe without residual warmup then has nothing to be compared with,
    and none.
    """
    if not changes and recipe.residual.schedule == "none":
        return {}
    recipe = _with_one_mixture(recipe)
    found: Variants = {}
    for change in changes or _baseline_and(recipe):
        if not isinstance(change, Mapping) or not isinstance(change.get("name"), str):
            raise ValueError(f"variants: {change!r} is not valid: it needs a name")
        name = change["name"]
        if name in found:
            raise ValueError(f"variants: the name {name!r} is used more than once")
        if not NAME.fullmatch(name):
            raise ValueError(f"variants: name={name!r} is not valid: {NAME_RULE}")
        changed = _merged(plain(recipe), change)
        found[name] = build(changed | {"name": recipe.name, "variant": name})
    return found


def _with_one_mixture(recipe: Recipe) -> Recipe:
    """All variants see the same batches: "warmup" in a mixture is the end of the recipe's own
    residual warmup, whatever a variant has.

    Raises:
        ValueError: if it has none.
    """
    if not recipe.data.follows_warmup:
        return recipe
    if (end := recipe.warmup_end) is None:
        raise ValueError(
            "data.mixture: the point 'warmup' is for all variants the end of the recipe's own "
            "residual warmup: give [residual] one that ends, or the point in updates"
        )
    return replace(recipe, data=recipe.data.with_warmup_at(math.ceil(end)))


@dataclass(frozen=True)
class Point:
    """One point of a sweep: a variant, and a value for each axis."""

    variant: str
    values: tuple[Any, ...]
    recipe: Recipe


def sweep(variants: Variants, axes: Axes) -> dict[str, Point]:
    """Every variant with every combination of the axes' values, the last axis fastest.

    Each is called by its variant and its values, ``lion.warmup-0.05``.

    Raises:
        ValueError: naming the field, if an axis has no values or one of them is not valid.
    """
    for key, axis in axes.items():
        if not isinstance(axis, list) or not axis:
            raise ValueError(f"sweep.{key}={axis!r} is not valid: give a list of values")
    found: dict[str, Point] = {}
    for variant, own in variants.items():
        recipe = _with_one_mixture(own)
        for values in itertools.product(*axes.values()):
            chosen = dict(zip(axes, values, strict=True))
            name = ".".join(filter(None, [variant, *itertools.starmap(_called, chosen.items())]))
            if name in found:
                raise ValueError(f"sweep: {chosen} is not valid: give each value once")
            found[name] = Point(variant, values, _with(recipe, name, chosen))
    return found


def _called(key: str, value: Any) -> str:
    """A folder's name for the value of a field."""
    return re.sub(r"[^\w.-]+", "-", f"{key.rpartition('.')[2]}-{value}")


def with_model(recipe: Recipe, change: Mapping[str, Any]) -> Recipe:
    """The recipe with a change of its [model], merged as that of a variant is."""
    tables = _merged({"model": plain(recipe.model)}, {"model": change})
    return replace(recipe, model=build_model(tables["model"]))


def _with(recipe: Recipe, name: str, values: Mapping[str, Any]) -> Recipe:
    tables = plain(recipe)
    for key, value in values.items():
        change: Any = value
        if key in _SCHEDULES and isinstance(value, str) and depth.takes_length(value):
            # The length stays: unlike a variant, an axis says no other.
            change = {**_at(tables, key.rpartition(".")[0]), "schedule": value}
            key = key.rpartition(".")[0]
        for part in reversed(key.split(".")):
            change = {part: change}
        tables = _merged(tables, change)
    try:
        return build(tables | {"variant": name})
    except ValueError as error:
        said = ", ".join(f"{key}={value!r}" for key, value in values.items())
        raise ValueError(f"sweep with {said}: {error}") from None


_SCHEDULES = ("residual.schedule", "rate.layers.schedule")


def _at(tables: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    found: Any = tables
    for part in path.split("."):
        found = found.get(part, {})
    return found


def _baseline_and(recipe: Recipe) -> list[Change]:
    return [
        {"name": "baseline", "residual": {"schedule": "none"}},
        {"name": recipe.residual.schedule},
    ]


# Tables of which a change that says `trigger` leaves only what is named after it.
_REPLACED: dict[str, tuple[str, tuple[str, ...]]] = {
    "residual": ("", ("schedule",)),
    "rate.layers": ("", ("schedule",)),
    "model": ("preset", ()),
    "optimizer": ("name", ("weight_decay", "clip")),
}


def _merged(
    tables: Mapping[str, Any], change: Mapping[str, Any], where: str = ""
) -> dict[str, Any]:
    found = dict(tables)
    for key, value in change.items():
        old, path = tables.get(key), f"{where}{key}"
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            trigger, kept = _REPLACED.get(path, (None, ()))
            if trigger == "" or trigger in value:
                old = {name: old[name] for name in kept if name in old}
            elif path == "model":
                old = ready_for(old, value)
            elif path == "data" and value.get("validation") is not None:
                # A held-out text takes the place of a share of the source.
                old = {name: old[name] for name in old if name != "validation_fraction"}
            found[key] = _merged(old, value, f"{path}.")
        else:
            found[key] = value
    return found


def _shipped() -> Path:
    inside = Path(__file__).parents[1] / "recipes"  # an installed wheel
    return inside if inside.is_dir() else Path(__file__).parents[3] / "recipes"
