"""The flags of [model] that say more than a value: hf, hf_config, weights."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Sequence
from typing import Any

from groundup.model.config import ModelConfig
from groundup.train import recipe_file
from groundup.train.recipe import Recipe

_FLAGS = ("--model.hf-config", "--model.hf_config")
_FOUND = {"hf", "hf_config", "weights"}


def taken_out(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The arguments without ``--model.hf-config KEY=VALUE …``, and what that says.

    Values are TOML's; what is none is a text. A dotted key reaches into a table.

    Raises:
        ValueError: for what is not KEY=VALUE, or a key that is said twice.
    """
    others: list[str] = []
    settings: list[str] = []
    into = others
    for argument in arguments:
        flag, _, rest = argument.partition("=")
        if flag in _FLAGS:
            into = settings
            settings += [rest] if rest else []
        elif argument.startswith("--"):
            into = others
            others.append(argument)
        else:
            into.append(argument)
    try:
        return others, tomllib.loads("\n".join(map(_line, settings)))
    except tomllib.TOMLDecodeError as error:
        said = " ".join(settings)
        raise ValueError(f"model.hf_config: {said} is not valid: {error}") from None


def _line(setting: str) -> str:
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise ValueError(
            f"model.hf_config: {setting!r} is not valid: write it like n_layer=4 n_embd=128"
        )
    try:
        tomllib.loads(f"{key} = {value}")
        return f"{key} = {value}"
    except tomllib.TOMLDecodeError:
        return f"{key} = {json.dumps(value)}"


def with_model(before: Recipe, after: Recipe, hf_config: dict[str, Any]) -> Recipe:
    """`after`, with what flags changed of `before.model` looked up, as it is in a recipe's file.

    Raises:
        ValueError: for what cannot be found or does not fit.
    """
    change = {
        field.name: getattr(after.model, field.name)
        for field in dataclasses.fields(ModelConfig)
        if getattr(after.model, field.name) != getattr(before.model, field.name)
    }
    if hf_config:
        change["hf_config"] = hf_config
    if not change.keys() & _FOUND:
        return after
    return recipe_file.with_model(dataclasses.replace(after, model=before.model), change)
