"""The lines that a run has recorded, read back: by a run that goes on, and by its summary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundup._check import count, is_number
from groundup._json import parse

__all__ = ["line", "lines"]

# What is read back of each kind; where training broke down it is null.
_NUMBERS = {
    "metrics.jsonl": ("loss", "grad_norm", "tokens"),
    "timing.jsonl": ("tokens_per_second",),
}


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """All lines of a file, in order. Raises: ValueError as `line` does."""
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            yield line(path, number, raw)


def line(path: Path, number: int, raw: bytes) -> dict[str, Any]:
    """One line of metrics, timing, measurements, sketches or events: an object with its "step".

    Raises:
        ValueError: naming the file and the line, if it is not what was written there.
    """
    try:
        found = parse(raw)
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
        for name in {"step", "to"} & {"step", *found}:
            count(name, found.get(name), least=0)
        for name in _NUMBERS.get(path.name, ()):
            if name not in found or not (found[name] is None or is_number(found[name])):
                raise ValueError(f"it has no number {name}")
    except ValueError as error:
        raise ValueError(
            f"{path}, line {number} is damaged ({error!s:.200}): the run cannot go on from it. Use "
            "another folder with --out"
        ) from None
    return found
