"""Arithmetic on training curves: smoothing, thinning, averaging over seeds. No drawing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from groundup.report.runs import Run

__all__ = [
    "RAW_RUNS",
    "average",
    "decay_start",
    "difference",
    "last",
    "series",
    "smooth",
    "thin",
    "window",
]

Numbers = NDArray[np.float64]
Curve = tuple[Numbers, Numbers]
"""Steps and values."""


RAW_RUNS = 6
"""With more runs than this, the raw curves behind the smoothed ones would only be a smear."""


def last(runs: Sequence[Run]) -> int:
    """Updates of the longest run."""
    return max(run.updates for run in runs)


def window(runs: Sequence[Run]) -> int:
    """Updates to average over in a figure: 2% of the longest run, odd."""
    return max(1, last(runs) // 50) | 1


def smooth(values: Numbers, width: int) -> Numbers:
    """Centred moving average of the finite values.

    Where the run begins, the window shrinks on both sides, so that the steep first part is not
    shifted; where it ends, only on the side that lies beyond the end.
    """
    count = len(values)
    half = width // 2
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    at = np.arange(count)
    begin = at - np.minimum(half, at)
    end = at + np.minimum(half, np.minimum(at, count - 1 - at)) + 1
    number = counts[end] - counts[begin]
    total = sums[end] - sums[begin]
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def thin(steps: Numbers, values: Numbers, points: int = 800) -> Curve:
    """At most about `points` points, which keep each stretch's lowest and highest value."""
    finite = np.flatnonzero(np.isfinite(values))
    steps, values = steps[finite], values[finite]
    if len(steps) <= points:
        return steps, values
    edges = np.linspace(0, len(steps), points // 2 + 1).astype(int)
    keep = {0, len(steps) - 1}
    for begin, end in pairwise(edges.tolist()):
        keep.add(begin + int(np.argmin(values[begin:end])))
        keep.add(begin + int(np.argmax(values[begin:end])))
    chosen = np.array(sorted(keep))
    return steps[chosen], values[chosen]


def average(curves: Sequence[Curve]) -> Curve:
    """Mean over seeds at the steps that all curves have."""
    steps = curves[0][0]
    for other, _ in curves[1:]:
        steps = np.intersect1d(steps, other)
    rows = [values[np.searchsorted(at, steps)] for at, values in curves]
    return steps, np.mean(rows, axis=0) if len(steps) else steps


def series(run: Run, name: str) -> Curve:
    """A series of a run over completed updates."""
    return run.steps.astype(np.float64), run.series[name]


def difference(run: Run, base: Run, name: str, width: int) -> Curve:
    """Smoothed difference of two runs' series at the steps that both have."""
    steps, ours, theirs = np.intersect1d(run.steps, base.steps, return_indices=True)
    gap = run.series[name][ours] - base.series[name][theirs]
    return steps.astype(np.float64), smooth(gap, width)


def decay_start(run: Run) -> int | None:
    """Completed updates at which the learning rate leaves its peak for good; None: not yet."""
    rate = run.series["rate"]
    if not np.isfinite(rate).any():
        return None
    peak = np.nanmax(rate)
    top = int(np.flatnonzero(rate >= peak * (1 - 1e-6))[-1])
    return int(run.steps[top + 1]) if top + 1 < len(rate) else None
