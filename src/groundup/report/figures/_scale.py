"""Scales fitted to the runs that did not diverge: those that did would leave one shade, or one flat
line, for the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.report.figures._courses import ended
from groundup.report.table import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FITTED = "Scales are fitted to the runs that did not diverge."

_SHARE = 0.5  # of the axis: with at least this much, the rest is well seen as it is
_ROOM = 0.1  # of the fitted range, above and below


def sound(part: Study) -> set[str]:
    """Names of the variants of which no run diverged; all names if there is none such."""
    names = {v.name for v in part.variants if not any(ended(run) == math.inf for run in v.runs)}
    return names or {v.name for v in part.variants}


def fit(axes: Axes, lines: Mapping[str, Any], kept: set[str]) -> bool:
    """Fits the vertical axis to the lines of the variants `kept`, if others take most of it.

    Returns:
        whether it did.
    """
    log = axes.get_yscale() == "log"
    ends = {name: _ends(line, log) for name, line in lines.items()}
    known = {name: end for name, end in ends.items() if end is not None}
    ours = [end for name, end in known.items() if name in kept]
    if not ours or len(ours) == len(known):
        return False
    (low, high), whole = _span(ours), _span(list(known.values()))
    if high - low >= _SHARE * (whole[1] - whole[0]):
        return False
    room = _ROOM * (high - low) or _ROOM * (abs(high) or 1.0)
    low, high = low - room, high + room
    axes.set_ylim((10**low, 10**high) if log else (low, high))
    return True


def _ends(line: Any, log: bool) -> tuple[float, float] | None:
    """Lowest and highest value of a line, their logarithms on a logarithmic axis."""
    values = np.asarray(line.get_ydata(), dtype=np.float64)
    values = values[np.isfinite(values) & (values > 0 if log else True)]
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    return (math.log10(low), math.log10(high)) if log else (low, high)


def _span(ends: list[tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in ends), max(high for _, high in ends)
