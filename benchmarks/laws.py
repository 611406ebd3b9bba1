"""How a time grows with a size: a line with a fixed part, or a power; fitted round by round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import timing
from timing import Round


class Law(Protocol):
    """What is fitted to the times of several sizes."""

    name: str

    def fit(self, sizes: Sequence[int], found: Sequence[Round], clock: int) -> dict[str, Any]:
        """Its coefficients in seconds, and what the times do that it does not say; each with its
        95% interval over the rounds. `found` has the sizes as its arms' names."""

    def at(self, fitted: dict[str, Any], sizes: Sequence[float]) -> list[float]:
        """The seconds that it gives for `sizes`."""

    def words(self, fitted: dict[str, Any], what: str) -> str:
        """In a line; `what` is that of which a size is the number."""


class Line:
    """seconds = fixed + each · size. Sizes count alike: it is fitted to relative differences."""

    name = "line"

    def fit(self, sizes: Sequence[int], found: Sequence[Round], clock: int) -> dict[str, Any]:
        x, times = np.asarray(sizes, dtype=np.float64), _table(sizes, found, clock)
        lines = np.stack([_line(x, row) for row in times])
        off = times / (lines @ np.stack([np.ones_like(x), x])) - 1
        besides = {size: timing.estimate(off[:, k]) for k, size in enumerate(sizes)}
        furthest = max(besides, key=lambda size: abs(besides[size].value))
        return {
            "law": self.name,
            "fixed": timing.estimate(lines[:, 0]).to_json(),
            "each": timing.estimate(lines[:, 1]).to_json(),
            "off_the_line": {str(size): one.to_json() for size, one in besides.items()},
            "furthest_off": {"size": furthest, **besides[furthest].to_json()},
            # Two sizes are on a line whatever they take.
            "linear_within_spread": len(sizes) > 2
            and all(one.low <= 0 <= one.high for one in besides.values()),
        }

    def at(self, fitted: dict[str, Any], sizes: Sequence[float]) -> list[float]:
        return [fitted["fixed"]["value"] + fitted["each"]["value"] * size for size in sizes]

    def words(self, fitted: dict[str, Any], what: str) -> str:
        fixed, each, off = fitted["fixed"], fitted["each"], fitted["furthest_off"]
        said = f"{_seconds(each)} for each {what} and {_seconds(fixed)} that is fixed"
        if len(fitted["off_the_line"]) < 3:
            return said
        linear = (
            "linear within the spread" if fitted["linear_within_spread"] else "not quite linear"
        )
        return (
            f"{said}; {linear}, furthest off at {off['size']}: {100 * off['value']:+.1f}% "
            f"({100 * off['low']:+.1f} to {100 * off['high']:+.1f})"
        )


class Power:
    """seconds = a · size^exponent, by least squares between the logarithms."""

    name = "power"

    def fit(self, sizes: Sequence[int], found: Sequence[Round], clock: int) -> dict[str, Any]:
        logs, times = np.log(np.asarray(sizes, dtype=np.float64)), _table(sizes, found, clock)
        slopes, starts = np.polyfit(logs, np.log(times).T, 1)
        last = np.diff(np.log(times), axis=1)[:, -1] / (logs[-1] - logs[-2])
        return {
            "law": self.name,
            "exponent": timing.estimate(slopes).to_json(),
            "exponent_at_the_end": timing.estimate(last).to_json(),
            "at_one": timing.estimate(np.exp(starts)).to_json(),
        }

    def at(self, fitted: dict[str, Any], sizes: Sequence[float]) -> list[float]:
        a, exponent = fitted["at_one"]["value"], fitted["exponent"]["value"]
        return [a * size**exponent for size in sizes]

    def words(self, fitted: dict[str, Any], what: str) -> str:
        whole, last = fitted["exponent"], fitted["exponent_at_the_end"]
        return (
            f"grows with the {what} to the power {whole['value']:.2f} ({whole['low']:.2f} to "
            f"{whole['high']:.2f}), over the last two sizes {last['value']:.2f}"
        )


LAWS: dict[str, Law] = {law.name: law for law in (Line(), Power())}


def _table(sizes: Sequence[int], found: Sequence[Round], clock: int) -> np.ndarray:
    """Seconds [rounds, sizes]."""
    return np.array([[one[str(size)][clock] for size in sizes] for one in found])


def _line(x: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Fixed part and slope, the sum of ((fit − time)/time)² being least."""
    rows = np.stack([np.ones_like(x), x], axis=1) / times[:, None]
    return np.linalg.lstsq(rows, np.ones_like(x), rcond=None)[0]


def _seconds(one: dict[str, float]) -> str:
    """An estimate in a unit that fits it."""
    units = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
    unit = next((unit for unit, least in units.items() if abs(one["value"]) >= least), "ns")
    least = units[unit]
    spread = (one["high"] - one["low"]) / 2 / least
    return f"{one['value'] / least:.3g} ± {spread:.2g} {unit}"
