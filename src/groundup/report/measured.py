"""What a run measured of itself: measurements.jsonl and sketches.jsonl as arrays."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.report.lines import MOST

__all__ = ["Measured", "collect", "comparable", "similarity"]

_SHAPE = struct.Struct("<2I")  # tokens and width, with which a sketch begins


@dataclass(frozen=True, eq=False)
class Measured:
    """One quantity over a run.

    Attributes:
        steps: completed updates at which it was measured, [n] int64, rising.
        values: [n], or [n, L] where each layer (or bin of positions) has one; float64, `nan` where
            it is not defined.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def last(self) -> NDArray[np.float64]:
        """The values that were measured last: [] or [L]."""
        return np.asarray(self.values[-1])


def collect(rows: Iterable[Mapping[str, Any]]) -> dict[str, Measured]:
    """Quantities by name from objects with a "step", by rising step; a number or a list each.

    A list of another length than the last one's is left out: it is of another model.
    """
    found: dict[str, list[tuple[int, Any]]] = {}
    for row in rows:
        for key, value in row.items():
            if key != "step" and _is_numeric(value):
                # An evaluation stands in the line of the update it followed.
                late, name = key.startswith(("eval_", "eval/")), key.removeprefix("eval_")
                found.setdefault(name, []).append((row["step"] + late, value))
    return {name: _stacked(points) for name, points in found.items()}


def comparable(rows: Sequence[dict[str, Any]], notes: list[str]) -> tuple[dict[str, Any], ...]:
    """The lines of sketches.jsonl whose sketches are of inputs shaped as the last line's; `notes`
    says what was left out. Damaged lines stay: `similarity` raises at them."""
    shapes = [_sketched(row) for row in rows]
    others = [None not in (shape, shapes[-1]) and shape != shapes[-1] for shape in shapes]
    if number := sum(others):
        lines = "1 line" if number == 1 else f"{number} lines"
        notes.append(
            f"{lines} of sketches.jsonl left out: of inputs of another shape than the last line’s."
        )
    return tuple(row for row, other in zip(rows, others, strict=True) if not other)


def similarity(rows: Sequence[Mapping[str, Any]]) -> dict[str, Measured]:
    """The cosine of each sketch in `rows` with that in the last of them, by branch: [n, L]."""
    from groundup.measure.similarity import compare  # needs torch

    if not rows:
        return {}
    final = rows[-1]
    branches = [name for name, value in final.items() if isinstance(value, list)]
    found = {}
    for branch in branches:
        last = final[branch]
        points = [
            (row["step"], [compare(a, b) for a, b in zip(row[branch], last, strict=True)])
            for row in rows
            if isinstance(row.get(branch), list) and len(row[branch]) == len(last)
        ]
        found[branch] = _stacked(points)
    return found


def _sketched(row: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The shape that all sketches of a line have; None if there is no such or they are damaged."""
    texts = [str(text) for value in row.values() if isinstance(value, list) for text in value]
    try:
        # 12 letters are 9 bytes.
        heads = {base64.b64decode(text[:12], validate=True)[: _SHAPE.size] for text in texts}
        shapes = {_SHAPE.unpack(head) for head in heads}
    except (ValueError, struct.error):
        return None
    return shapes.pop() if len(shapes) == 1 else None


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        return all(entry is None or _is_number(entry) for entry in value)
    return _is_number(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= MOST
    return isinstance(value, float)


def _stacked(points: Sequence[tuple[int, Any]]) -> Measured:
    shape = _shape(points[-1][1])
    kept = [(step, value) for step, value in points if _shape(value) == shape]
    values = [_floats(value) for _, value in kept]
    steps = np.array([step for step, _ in kept], dtype=np.int64)
    return Measured(steps, np.array(values, dtype=np.float64))


def _shape(value: Any) -> int | None:
    return len(value) if isinstance(value, list) else None


def _floats(value: Any) -> Any:
    if isinstance(value, list):
        return [math.nan if entry is None else float(entry) for entry in value]
    return float(value)
