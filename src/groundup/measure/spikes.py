"""Spike score: how often a training curve jumps away from its recent past.

OLMo 2's measurement (arXiv:2501.00656), used by arXiv:2603.05369 for the loss and the gradient
norm: the percentage of points that lie at least seven standard deviations, to either side, from
the mean of the preceding 1000 points.

What the definition leaves open is settled like this:

* mean and deviation are those of the window itself (population deviation), the point excluded;
* points without a full window before them are not scored;
* if the window does not vary at all, a point equal to it is no spike and any other point is one;
* a point that is not finite (``nan``, ``inf`` or ``None``: an update that overflowed) is a spike,
  and is left out of the windows that follow; a finite point whose whole window is not finite
  has nothing to be compared with and is not scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = ["SpikeScore", "run_spike_score", "spike_score"]

_LONGEST_WINDOW = 1000
_SHORTEST_WINDOW = 10
_BLOCK = 1 << 20  # window elements held at once: 8 MiB of float64

Values = Sequence[float | None] | NDArray[np.floating]


@dataclass(frozen=True)
class SpikeScore:
    """The spike score of one run, with what is needed to judge it.

    Attributes:
        percent: spikes per hundred scored points; None if no point could be scored.
        spikes: positions of the spikes in the series.
        scored: how many points were scored.
        window: how many preceding points each one was compared with.
    """

    percent: float | None
    spikes: list[int]
    scored: int
    window: int


def spike_score(values: Values, window: int = 1000, threshold: float = 7.0) -> float:
    """Percentage of points at least `threshold` deviations from the mean of the `window` before.

    The whole series is scored, from its `window`-th point on; `nan` if it is no longer than that.
    See the module's text for the conventions, and `run_spike_score` for the measurement of a run.
    """
    series = as_series(values)
    spikes, scored = _judge(series, checked_window(window), checked_threshold(threshold))
    return 100.0 * int(spikes.sum()) / int(scored.sum()) if scored.any() else math.nan


def run_spike_score(
    values: Values,
    window: int | None = None,
    threshold: float = 7.0,
    span: tuple[float, float] = (0.1, 0.9),
) -> SpikeScore:
    """Spike score of the part of a run given by `span`, the middle 80% unless told otherwise.

    A point is scored if its position i satisfies ``span[0]·n ≤ i < span[1]·n`` for a run of n
    points; the window before it may reach back further. Without a `window`, it is 1000 points, or
    a tenth of a run that is shorter than 10 000, but at least 10.
    """
    series = as_series(values)
    count = len(series)
    if window is None:
        window = default_window(count)
    window = checked_window(window)
    first, last = _bounds(span, count)
    start = max(0, first - window)
    spikes, scored = _judge(series[start:last], window, checked_threshold(threshold))
    spikes[: first - start] = False
    scored[: first - start] = False
    total = int(scored.sum())
    positions = [int(i) + start for i in np.flatnonzero(spikes)]
    percent = 100.0 * len(positions) / total if total else None
    return SpikeScore(percent=percent, spikes=positions, scored=total, window=window)


def default_window(count: int) -> int:
    """The window for a run of `count` points: 1000, or a tenth of a shorter run, at least 10."""
    return max(_SHORTEST_WINDOW, min(_LONGEST_WINDOW, count // 10))


def _judge(
    series: NDArray[np.float64], window: int, threshold: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each point: is it a spike, and was it scored."""
    spikes = np.zeros(len(series), dtype=bool)
    scored = np.zeros(len(series), dtype=bool)
    if len(series) <= window:
        return spikes, scored
    windows = sliding_window_view(series, window)[:-1]
    points = series[window:]
    rows = max(1, _BLOCK // window)
    for begin in range(0, len(points), rows):
        part = slice(begin, min(begin + rows, len(points)))
        where = slice(window + part.start, window + part.stop)
        spikes[where], scored[where] = judge_block(windows[part], points[part], threshold)
    return spikes, scored


def judge_block(
    windows: NDArray[np.float64], points: NDArray[np.float64], threshold: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The same for a block: one row of `windows` per point.

    Everything is measured from a value of the window itself, so that nothing cancels, however
    far the series lies from zero, and a constant window deviates by exactly 0.
    """
    finite = np.isfinite(windows)
    counts = finite.sum(axis=1)
    usable = counts > 0
    anchor = windows[np.arange(len(windows)), finite.argmax(axis=1)]
    anchor = np.where(usable, anchor, 0.0)
    divisor = np.maximum(counts, 1)

    shifted = np.where(finite, windows - anchor[:, None], 0.0)
    mean = shifted.sum(axis=1) / divisor
    shifted -= mean[:, None]
    shifted[~finite] = 0.0
    np.square(shifted, out=shifted)
    deviation = np.sqrt(shifted.sum(axis=1) / divisor)

    known = np.isfinite(points)
    distance = np.abs(np.where(known, points, anchor) - anchor - mean)
    far = np.where(deviation > 0, distance >= threshold * deviation, distance > 0)
    return ~known | (usable & far), ~known | usable


def as_series(values: Values) -> NDArray[np.float64]:
    """A one-dimensional float64 array, scaled by a power of two so that no square overflows."""
    series = np.array(values, dtype=np.float64)  # None becomes nan
    if series.ndim != 1:
        raise ValueError(f"values must be one series of numbers, not of shape {series.shape}")
    series[~np.isfinite(series)] = np.nan
    largest = np.nanmax(np.abs(series)) if np.isfinite(series).any() else 0.0
    return np.ldexp(series, -int(np.frexp(largest)[1]) - 1)


def checked_window(window: int) -> int:
    if window < 2:
        raise ValueError(f"window is {window}, but must be at least 2: one point has no deviation")
    return int(window)


def checked_threshold(threshold: float) -> float:
    if not (math.isfinite(threshold) and threshold > 0):
        raise ValueError(f"threshold is {threshold}, but must be a number of deviations above 0")
    return float(threshold)


def _bounds(span: tuple[float, float], count: int) -> tuple[int, int]:
    """The positions [first, last) of the part of a run of `count` points."""
    low, high = span
    if not 0 <= low < high <= 1:
        raise ValueError(f"span is {span}, but must be two rising fractions between 0 and 1")
    return math.ceil(low * count - 1e-9), math.ceil(high * count - 1e-9)
