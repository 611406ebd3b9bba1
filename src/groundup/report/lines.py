"""JSON lines as a run has left them: it may be going on, or was killed in mid-write.

A file of a million updates is read line by line, and of each line only its numbers are kept.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup._json import parse

__all__ = ["MOST", "columns", "number", "objects", "rows"]

MOST = 1 << 53
"""Updates or tokens: a number beyond it is damage, and no float64 counts so far."""


def objects(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """All objects with a "step" of a file that may not be there, as they stand; what could not be
    read is added to `notes` at the end."""
    if not path.is_file():
        return
    damaged = 0
    with open(path, "rb") as file:
        for line in file:
            if not line.strip():
                continue
            if (found := _object(line)) is not None:
                yield found
            elif line.endswith(b"\n"):
                damaged += 1
            else:
                notes.append(f"The last line of {path.name} is cut off and was left out.")
    if damaged:
        lines = "1 unreadable line" if damaged == 1 else f"{damaged} unreadable lines"
        notes.append(f"{lines} of {path.name} left out.")


def rows(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The objects by rising step; of several for one step the last counts."""
    found = {row["step"]: row for row in objects(path, notes)}
    return [found[step] for step in sorted(found)]


def columns(
    path: Path, names: Sequence[str], notes: list[str]
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    """The steps, rising, and the numbers of these names as float64, `nan` where there is none; of
    several lines for one step the last counts."""
    steps = array("q")
    found = {name: array("d") for name in names}
    for row in objects(path, notes):
        steps.append(row["step"])
        for name, column in found.items():
            value = number(row.get(name))
            column.append(math.nan if value is None else value)
    unsorted = np.array(steps, dtype=np.int64)
    order = np.argsort(unsorted, kind="stable")
    last_of_each = np.append(np.diff(unsorted[order]) > 0, True)[: len(order)]
    order = order[last_of_each]
    return unsorted[order], {name: np.array(column)[order] for name, column in found.items()}


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) <= MOST else None
    return value if isinstance(value, float) and math.isfinite(value) else None


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        row = parse(line)
    except ValueError:  # also bytes that are not UTF-8
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return row if type(step) is int and 0 <= step <= MOST else None
