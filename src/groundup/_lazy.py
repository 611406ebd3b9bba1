"""Packages whose names are loaded on first use, so that a command pays for what it needs alone."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazily(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions `__getattr__` and `__dir__` of a package.

    Args:
        package: its name.
        homes: name → the submodule that has it; a submodule's own name → the same, for itself.
            Nothing else may be called as a submodule is, which would take its place.

    Example:
        >>> __getattr__, __dir__ = lazily("groundup.model", {"preset": "presets"})
        >>> __getattr__("preset")("tiny").layers
        12
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{homes[name]}")
        return module if homes[name] == name else getattr(module, name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names
