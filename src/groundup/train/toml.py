"""Recipes from and to TOML. A key that no field has is refused, with the nearest that one has."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from groundup._check import unknown
from groundup.model.config import ModelConfig
from groundup.model.presets import preset
from groundup.train.recipe import NAME, NAME_RULE, Recipe

Variants = dict[str, Recipe]
Change = Mapping[str, Any]
"""One [[variants]] entry: a name, and the tables in which the variant differs."""


def find(name: str) -> Path:
    """The path of a recipe: a TOML file, or the name of one that is shipped ("quickstart").

    Raises:
        ValueError: if there is none; the message lists the shipped ones.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = {path.stem: path for path in sorted(_shipped().glob("*.toml"))}
    if name in shipped:
        return shipped[name]
    raise unknown("recipe", name, [*shipped, "any path to a .toml file"])


def read(path: Path) -> tuple[Recipe, list[Change]]:
    """The recipe of a file, and the [[variants]] that it names for `groundup compare`.

    Raises:
        ValueError: naming the file, the key or field, its value and what is valid.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    try:
        changes = tables.pop("variants", [])
        recipe = build(tables)
        expand(recipe, changes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return recipe, changes


def expand(recipe: Recipe, changes: Sequence[Change]) -> Variants:
    """The variants that are compared: the recipe with each change made to it.

    A change's [residual] replaces the recipe's as a whole, since the ways to say its length
    exclude each other, and so does a [model] with a preset; other tables change single fields.
    Without changes there are two variants: `baseline` (no residual warmup) and the recipe as it is,
    called by its schedule. A recipe without residual warmup then has nothing to be compared with,
    and none.
    """
    if not changes and recipe.residual.schedule == "none":
        return {}
    found: Variants = {}
    for change in changes or _baseline_and(recipe):
        if not isinstance(change, Mapping) or not isinstance(change.get("name"), str):
            raise ValueError(f"variants: {change!r} is not valid: it needs a name")
        name = change["name"]
        if name in found:
            raise ValueError(f"variants: the name {name!r} is used more than once")
        if not NAME.fullmatch(name):
            raise ValueError(f"variants: name={name!r} is not valid: {NAME_RULE}")
        tables = _plain(recipe)
        for key, value in change.items():
            merged = isinstance(value, Mapping) and key != "residual" and "preset" not in value
            tables[key] = {**tables.get(key, {}), **value} if merged else value
        found[name] = build(tables | {"name": recipe.name, "variant": name})
    return found


def _baseline_and(recipe: Recipe) -> list[Change]:
    return [
        {"name": "baseline", "residual": {"schedule": "none"}},
        {"name": recipe.residual.schedule},
    ]


def build(tables: Mapping[str, Any]) -> Recipe:
    """The recipe that these tables describe; `model.preset` is expanded first."""
    tables = {"name": "run", **tables}
    model = tables.get("model")
    if isinstance(model, dict) and "preset" in model:
        own = {key: value for key, value in model.items() if key != "preset"}
        known = {f.name for f in dataclasses.fields(ModelConfig)}
        if wrong := set(own) - known:
            raise unknown("key in [model]", min(wrong), sorted(known))
        base = dataclasses.asdict(preset(model["preset"], **own))
        tables["model"] = {key: value for key, value in base.items() if value is not None}
    return _fill(Recipe, tables, "")


def dumps(recipe: Recipe) -> str:
    """The resolved recipe as TOML; `read` gives the same recipe back."""
    import tomli_w

    return tomli_w.dumps(_plain(recipe))


def differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted field name → (old, new) wherever the two differ."""
    a, b = _flat(_plain(old)), _flat(_plain(new))
    return {
        key: (a.get(key), b.get(key))
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    }


def _shipped() -> Path:
    inside = Path(__file__).parents[1] / "recipes"  # an installed wheel
    return inside if inside.is_dir() else Path(__file__).parents[3] / "recipes"


def _fill(kind: type, values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"[{where}] must be a table, not {values!r}")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    filled = {}
    for key, value in values.items():
        if key not in known:
            raise unknown(f"key in [{where}]" if where else "key", key, known)
        name = f"{where}.{key}" if where else key
        if dataclasses.is_dataclass(hints[key]):
            filled[key] = _fill(typing.cast(type, hints[key]), value, name)
        else:
            filled[key] = _typed(value, hints[key], name)
    try:
        return kind(**filled)
    except ValueError as error:
        raise ValueError(f"[{where}] {error}" if where else str(error)) from None


def _typed(value: Any, hint: Any, name: str) -> Any:
    """`value` if it is of the type that the field has; TOML's own types are enough for that."""
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    for option in options:
        origin = typing.get_origin(option)
        if origin is typing.Literal:
            if value in typing.get_args(option) and isinstance(value, str):
                return value
        elif origin is tuple:
            inner = typing.get_args(option)
            if isinstance(value, list | tuple) and len(value) == len(inner):
                return tuple(_typed(v, h, name) for v, h in zip(value, inner, strict=True))
        elif option is float and int not in options and type(value) is int:
            return float(value)
        elif option is not NoneType and type(value) is option:
            return value
    raise ValueError(f"{name}={value!r} is not valid: it must be {_said(options)}")


def _is_union(hint: Any) -> bool:
    return isinstance(hint, UnionType) or typing.get_origin(hint) is typing.Union


def _said(options: tuple[Any, ...]) -> str:
    names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
    parts = []
    for option in options:
        if typing.get_origin(option) is typing.Literal:
            parts.append("one of " + ", ".join(map(repr, typing.get_args(option))))
        elif option is not NoneType:
            parts.append(names.get(option, f"a list of {len(typing.get_args(option))} numbers"))
    return " or ".join(parts)


def _plain(value: Any) -> Any:
    """Dataclasses as tables without the fields that are None (TOML has no null)."""
    if dataclasses.is_dataclass(value):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: _plain(v) for name, v in pairs if v is not None}
    return list(value) if isinstance(value, tuple) else value


def _flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
