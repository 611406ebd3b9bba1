"""How far an axis reaches: a few runs that learned nothing must not hide what the others did."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

__all__ = ["reach"]

_FAR, _SHOWN = 8.0, 4.0


def reach(distances: Sequence[float]) -> float | None:
    """Where an axis that begins at 0 is cut: at 4 times the median of the distances that it is to
    show, if one is more than 8 times the median; else None, it is not."""
    median = statistics.median(distances) if distances else 0.0
    return _SHOWN * median if median and max(distances) > _FAR * median else None
