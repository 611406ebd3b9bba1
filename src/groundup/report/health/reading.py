"""Picks out of a run what the rules look at: the last values, those of the settled part."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from groundup.report.curves import decay_start
from groundup.report.moments import schedule_of
from groundup.report.runs import Run

__all__ = [
    "awake",
    "finite_median",
    "full_rate",
    "last_layers",
    "last_scalar",
    "layer_medians",
    "points",
    "settled",
    "settled_from",
]

Numbers = NDArray[np.float64]


def awake(run: Run) -> float | None:
    """Completed updates after which every layer is at α = 1; None without such a moment."""
    schedule = schedule_of(run)
    if schedule is None or run.layers is None:
        return None
    end = float(schedule.end(run.layers))
    return end if math.isfinite(end) else None


def full_rate(run: Run) -> int | None:
    """Completed updates at which the learning rate first reaches its peak; None: unknown."""
    rate = run.series.get("rate")
    if rate is None or not np.isfinite(rate).any():
        return None
    return int(run.steps[int(np.flatnonzero(rate >= np.nanmax(rate) * (1 - 1e-6))[0])])


def settled_from(run: Run) -> float:
    """Completed updates from which rate and residual warmup are over.

    A fixed α (`fix-L`) has no end, and is over from the beginning.
    """
    return max(float(full_rate(run) or 0), awake(run) or 0.0)


def points(run: Run, name: str, layers: bool) -> tuple[NDArray[np.int64], Numbers] | None:
    """(steps, values [n, L] or [n]) of the rows with a finite value; None if there is none."""
    measured = run.measured.get(name)
    if measured is None or measured.values.ndim != (2 if layers else 1):
        return None
    finite = np.isfinite(measured.values)
    kept = finite.any(axis=1) if layers else finite
    return (measured.steps[kept], measured.values[kept]) if kept.any() else None


def last_layers(run: Run, name: str) -> tuple[int, Numbers] | None:
    """(completed updates, values [L]) of the last measurement with a finite value."""
    found = points(run, name, layers=True)
    return (int(found[0][-1]), found[1][-1]) if found else None


def last_scalar(run: Run, name: str) -> tuple[int, float] | None:
    """(completed updates, value) of the last finite measurement."""
    found = points(run, name, layers=False)
    return (int(found[0][-1]), float(found[1][-1])) if found else None


def settled(run: Run, name: str, layers: bool) -> Numbers | None:
    """The values after both warmups and before the decay, or, with none there, up to the end."""
    found = points(run, name, layers)
    if found is None:
        return None
    steps, values = found
    late = steps >= settled_from(run)
    start = decay_start(run)
    held = late & (steps < start) if start is not None else late
    kept = held if held.any() else late
    return values[kept] if kept.any() else None


def layer_medians(values: Numbers) -> Numbers:
    """Median over time of each layer's finite values: [L] from [n, L]; nan without any."""
    return np.array([finite_median(column) for column in values.T], dtype=np.float64)


def finite_median(values: Numbers) -> float:
    """Median of the finite values; nan without any."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan
