"""Refusing bad input: one wording for every error that a user can cause.

Each message names the field, the value and what would be valid.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


def unknown(field: str, value: object, valid: Iterable[str]) -> ValueError:
    """The error for a name that is not in a table, with the nearest names that are."""
    names = list(valid)
    near = difflib.get_close_matches(str(value), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return ValueError(f"{field}={value!r} is unknown: {hint}valid are {', '.join(names)}")


def positive(field: str, value: Any) -> float:
    """`value` as it is, a finite real number above 0; ValueError otherwise."""
    if not is_number(value) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{field}={value!r} is not valid: it must be a finite number above 0")
    return value


def finite(field: str, value: Any) -> float:
    """`value` as it is, a finite real number; ValueError otherwise."""
    if not is_number(value) or not math.isfinite(value):
        raise ValueError(f"{field}={value!r} is not valid: it must be a finite number")
    return value


def within(field: str, value: Any, low: float, high: float) -> float:
    """`value` as it is, a finite number in [low, high] (high may be inf); ValueError otherwise."""
    if not is_number(value) or not math.isfinite(value) or not low <= value <= high:
        valid = f"in [{low}, {high}]" if math.isfinite(high) else f"of at least {low}"
        raise ValueError(f"{field}={value!r} is not valid: it must be a finite number {valid}")
    return value


def count(field: str, value: Any, least: int = 1) -> int:
    """`value` as an int of at least `least`; ValueError otherwise (also for bools and floats)."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(
            f"{field}={value!r} is not valid: it must be a whole number of at least {least}"
        )
    return int(value)


def is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
