"""Recipes from and to TOML. A key that no field has is refused, with the nearest that one has."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any

from groundup._check import unknown
from groundup.model.config import ModelConfig
from groundup.model.presets import preset
from groundup.model.resolution import resolved
from groundup.train.recipe import Recipe


def build(tables: Mapping[str, Any]) -> Recipe:
    """The recipe that these tables describe; `model.preset`, `model.hf` and `model.weights` are
    worked out first."""
    tables = {"name": "run", **tables}
    if isinstance(model := tables.get("model"), Mapping):
        tables["model"] = _model(model)
    return _fill(Recipe, tables, "")


def build_model(table: Mapping[str, Any]) -> ModelConfig:
    """The model that a [model] table describes, as in `build`."""
    return typing.cast(ModelConfig, _fill(ModelConfig, _model(table), "model"))


def _model(table: Mapping[str, Any]) -> Mapping[str, Any]:
    own = {key: value for key, value in table.items() if key != "preset"}
    known = {f.name for f in dataclasses.fields(ModelConfig)}
    if wrong := set(own) - known:
        raise unknown("key in [model]", min(wrong), sorted(known))
    if "preset" in table:
        own = plain(preset(table["preset"], **own))
    try:
        return resolved(own)
    except ValueError as error:
        raise ValueError(f"[model] {error}") from None


def dumps(recipe: Recipe) -> str:
    """The resolved recipe as TOML; `read` gives the same recipe back."""
    import tomli_w

    return tomli_w.dumps(plain(recipe))


def differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted field name → (old, new) wherever the two differ."""
    a, b = flat(plain(old)), flat(plain(new))
    return {
        key: (a.get(key), b.get(key))
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    }


def _fill(kind: type, values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"[{where}] must be a table, not {values!r}")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    filled = {}
    for key, value in values.items():
        if key not in known:
            raise unknown(f"key in [{where}]" if where else "key", key, known)
        filled[key] = _typed(value, hints[key], f"{where}.{key}" if where else key)
    try:
        return kind(**filled)
    except ValueError as error:
        raise ValueError(f"[{where}] {error}" if where else str(error)) from None


def _typed(value: Any, hint: Any, name: str) -> Any:
    """`value` if it is of the type that the field has; TOML's own types are enough for that."""
    if hint is Any:  # the class checks it itself
        return value
    if dataclasses.is_dataclass(hint):
        return _fill(typing.cast(type, hint), value, name)
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    for option in options:
        origin = typing.get_origin(option)
        if origin is typing.Literal:
            if value in typing.get_args(option) and isinstance(value, str):
                return value
        elif origin is tuple:
            inner = typing.get_args(option)
            if isinstance(value, list | tuple) and inner[1:] == (...,):
                inner = (inner[0],) * len(value)
            if isinstance(value, list | tuple) and len(value) == len(inner):
                return tuple(_typed(v, h, name) for v, h in zip(value, inner, strict=True))
        elif origin is dict and isinstance(value, Mapping):
            return dict(value)
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
            parts.append(names.get(option) or _listed(typing.get_args(option), names))
    return " or ".join(parts)


def _listed(inner: tuple[Any, ...], names: dict[Any, str]) -> str:
    if inner[:1] == (str,):
        return "a table" if len(inner) == 2 and inner[1] is Any else "a list of strings"
    if inner[1:] == (...,):
        return "a list of tables" if dataclasses.is_dataclass(inner[0]) else "a list of strings"
    return f"a list of {len(inner)} numbers"


def plain(value: Any) -> Any:
    """Dataclasses as tables without the fields that are None (TOML has no null) or not used."""
    if dataclasses.is_dataclass(value):
        unused = getattr(value, "unused", ())
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: plain(v) for name, v in pairs if v is not None and name not in unused}
    return [plain(one) for one in value] if isinstance(value, tuple) else value


def flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, under dotted names."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
