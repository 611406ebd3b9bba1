"""What the runs were made with, and in what they differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from groundup.report.runs import Run
from groundup.report.table import Study

__all__ = ["differences", "flat", "versions"]

_NAMES_ONLY = {"name", "variant", "train.seed"}


def flat(recipe: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A recipe's settings as ("train.steps", 1000)."""
    for key, value in recipe.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(group: Study) -> list[tuple[str, list[str]]]:
    """Settings that are not the same for all variants: (key, one value per variant).

    Names and the seed are left out; a setting that a recipe lacks is a dash.
    """
    recipes = [dict(flat(variant.runs[0].recipe)) for variant in group.variants]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    rows = []
    for key in keys:
        values = [_shown(recipe[key]) if key in recipe else "–" for recipe in recipes]
        if key not in _NAMES_ONLY and len(set(values)) > 1:
            rows.append((key, values))
    return rows


def versions(run: Run) -> str:
    """“groundup 0.1.0, torch 2.13.0”, or nothing if the summary does not say."""
    stated = run.summary.get("versions")
    if not isinstance(stated, dict):
        return ""
    return ", ".join(f"{name} {version}" for name, version in stated.items())


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
