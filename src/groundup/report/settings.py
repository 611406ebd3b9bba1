"""What the runs were made with, and in what they differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from groundup.report.runs import Run

__all__ = ["Setting", "differences", "flat", "versions"]

Setting = str | int | float | None
"""A setting as a table shows and sorts it; None where a recipe lacks it."""

_NAMES_ONLY = {"name", "variant", "train.seed"}


def flat(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A recipe's settings as ("train.steps", 1000)."""
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(runs: Sequence[Run]) -> dict[str, tuple[Setting, ...]]:
    """Settings that are not the same for all runs: key → one value per run.

    Names and the seed are left out.
    """
    recipes = [dict(flat(run.recipe)) for run in runs]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    columns = {key: tuple(_plain(recipe.get(key)) for recipe in recipes) for key in keys}
    # Told apart as they are shown: 1 and true are equal in Python, in a recipe they are not.
    return {
        key: values
        for key, values in columns.items()
        if key not in _NAMES_ONLY and len(set(map(repr, values))) > 1
    }


def versions(run: Run) -> str:
    """“groundup 0.1.0, torch 2.13.0”, or nothing if the summary does not say."""
    stated = run.summary.get("versions")
    if not isinstance(stated, dict):
        return ""
    return ", ".join(f"{name} {version}" for name, version in stated.items())


def _plain(value: Any) -> Setting:
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, bool)):
        return value
    return json.dumps(value, default=str, ensure_ascii=False)
