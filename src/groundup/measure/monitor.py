"""The spike score's judgement while a run goes on: each point as it arrives, by the same rule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundup.measure import spikes

__all__ = ["Monitor", "Verdict"]


@dataclass(frozen=True)
class Verdict:
    """A spike: the point, and mean and population deviation of the finite points in the window
    before it. `nan` for a point that is not finite, and where there was nothing finite before."""

    value: float
    mean: float
    deviation: float

    @property
    def above(self) -> bool:
        """Whether it lies above the mean or is not finite, which is what harms a run."""
        return not self.value < self.mean


class Monitor:
    """Judges the points of a series one by one, each against the `window` points before it.

    The verdicts are those of `spike_score` (arXiv:2501.00656; conventions in
    `groundup.measure.spikes`): a point at least `threshold` deviations from the mean, to either
    side, or not finite, is a spike, if a full window stands before it. They agree exactly for
    numbers in the range of float32. A spike enters the windows that follow like any other point
    (unless it is not finite), so the next one has to reach further until it has left them.

    Each point costs O(window): some 12 µs, and 40 µs where it lies near the threshold or beyond.

    Args:
        window: points each one is compared with, at least 2.
        threshold: deviations from the mean, above 0.
        before: points of the past to begin with.

    Raises:
        ValueError: for a window or threshold out of range.

    Example:
        >>> monitor = Monitor(window=4, before=[1.0, 3.0, 1.0, 3.0])
        >>> monitor.add(9.0)
        Verdict(value=9.0, mean=2.0, deviation=1.0)
        >>> monitor.add(2.0) is None
        True
    """

    def __init__(
        self, window: int = 1000, threshold: float = 7.0, before: Iterable[float | None] = ()
    ) -> None:
        self.window = spikes.checked_window(window)
        self.threshold = spikes.checked_threshold(threshold)
        # The window lies in one piece at the end of what is filled.
        self._points = np.empty(2 * self.window)
        self._filled = 0
        for value in before:
            self._append(value)

    def judge(self, value: float | None) -> Verdict | None:
        """The verdict on the next point, which is not added: None if it is no spike.

        `value`: a number; nan, ±inf or None for one that is not finite.
        """
        if self._filled < self.window:
            return None
        point = math.nan if value is None or not math.isfinite(value) else float(value)
        last = self._points[self._filled - self.window : self._filled]
        if value is not None and self._is_far_from_a_spike(float(value), last):
            return None
        # What they are scaled by is a power of two, and changes no verdict.
        series = spikes.as_series(np.append(last, point))
        is_spike, _ = spikes.judge_block(series[None, :-1], series[-1:], self.threshold)
        if not is_spike[0]:
            return None
        finite = last[np.isfinite(last)]
        mean, deviation = (finite.mean(), finite.std()) if len(finite) else (math.nan, math.nan)
        return Verdict(point, float(mean), float(deviation))

    def _is_far_from_a_spike(self, value: float, last: NDArray[np.float64]) -> bool:
        """Whether no rounding could make it one. False where anything is not finite."""
        mean, deviation = last.mean(), last.std()
        # The wider the window spreads for its size, the less of the deviation is rounding.
        precise = 1e-6 * abs(mean) < deviation < math.inf
        return bool(precise and abs(value - mean) < 0.99 * self.threshold * deviation)

    def add(self, value: float | None) -> Verdict | None:
        """Judge the next point and add it to the series."""
        verdict = self.judge(value)
        self._append(value)
        return verdict

    def _append(self, value: float | None) -> None:
        if self._filled == len(self._points):
            self._points[: self.window] = self._points[self.window :]
            self._filled = self.window
        self._points[self._filled] = math.nan if value is None else value
        self._filled += 1
