"""Differences of two arms, paired by seed, and how far they can be trusted: Student's t."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from groundup._check import count, within
from groundup.report.table import spread

__all__ = ["LEVEL", "Paired", "paired", "t_quantile"]

LEVEL = 0.95
"""Of the intervals."""

_CLOSE = 1e-13  # of an angle, in radians


@dataclass(frozen=True)
class Paired:
    """Differences of two arms, the first less the second, over the seeds that both have.

    Attributes:
        values: seed → difference; below 0: the first is better.
        mean, sd: over seeds; sd None for one seed.
        half: half the width of the mean's interval at `LEVEL`, by Student's t with n − 1 degrees of
            freedom; None for one seed, which has no interval.
    """

    values: Mapping[int, float]
    mean: float
    sd: float | None
    half: float | None

    @property
    def n(self) -> int:
        """Seeds."""
        return len(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high)."""
        return None if self.half is None else (self.mean - self.half, self.mean + self.half)

    @property
    def agreeing(self) -> int:
        """Seeds whose difference has the sign of the mean."""
        return sum(value * self.mean > 0 for value in self.values.values())


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Paired | None:
    """The differences of two arms' values by seed; None if they have no seed in common."""
    values = {seed: first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())}
    over = spread(values.values())
    if over is None:
        return None
    half = None
    if over.sd is not None:
        half = t_quantile((1 + LEVEL) / 2, over.n - 1) * over.sd / math.sqrt(over.n)
    return Paired(values, over.mean, over.sd, half)


def t_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t distribution with a whole number of degrees of freedom.

    With θ = arctan(t/√ν), P(|T| ≤ t) is a finite sum of powers of cos θ (Abramowitz and Stegun,
    26.7.3 and 26.7.4), which rises with θ: the root is found by bisection.

    Args:
        probability: in [0.5, 1).
        freedom: ν, at least 1.

    Raises:
        ValueError: naming the argument.
    """
    count("freedom", freedom)
    if within("probability", probability, 0.5, 1.0) == 1.0:
        raise ValueError("probability=1.0 is not valid: it must be below 1")
    low, high = 0.0, math.pi / 2
    while high - low > _CLOSE:
        middle = (low + high) / 2
        if _within(middle, freedom) < 2 * probability - 1:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _within(theta: float, freedom: int) -> float:
    """P(|T| ≤ √ν·tan θ)."""
    sine, square = math.sin(theta), math.cos(theta) ** 2
    odd = freedom % 2
    # The terms of the sum: each is the one before times cos²θ·(k − 1)/k.
    term = sine * math.cos(theta) if odd else sine
    terms = []
    for k in range(3 if odd else 2, freedom + 1, 2):
        terms.append(term)
        term *= square * (k - 1) / k
    total = math.fsum(terms)
    return 2 / math.pi * (theta + total) if odd else total
