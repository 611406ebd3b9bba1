"""From shares to whole samples: how many samples of each part come before an update.

With B samples an update and the share w_k(u) of part k in update u, the part is due
T_k(t) = B·(w_k(0) + … up to the moment t) samples; inside an update it grows evenly. Rounding each
T_k(s) by itself would not add up to s·B. So n_k(s) is T_k, rounded to the nearest, not at s but at
the moment τ near it at which the rounded numbers add up to s·B: Webster's method of dividing seats
by votes. (Parts that pass a half at the same moment get their sample in their order.)

- They add up: Σ n_k(s) = s·B.
- None falls: τ never goes back, and neither does T_k.
- None strays: the errors of rounding are ½ at most, so |τ − s|·B ≤ K/2 for K parts, and with
  w = B·(τ − s)'s mean share, |n_k(s) − T_k(s)| ≤ ½·(1 + w·(K − 2)): at most ½ for two parts, 1 for
  three, (K − 1)/2 for more, in samples, at any point of a run of any length.

All of it is integer arithmetic, and n(s) depends on s, the shares and B alone: it is found without
the updates before s.
"""

from __future__ import annotations

import bisect
import functools

import numpy as np
from numpy.typing import NDArray

from groundup._check import count
from groundup.data.mixture.weights import WHOLE

__all__ = ["Counts"]

_MOMENTS = 1 << 32  # in an update


class Counts:
    """Samples of each part before any update.

    `shares`: int64 [updates, parts], as `weights.shares` gives them, the last row for ever;
    `batch`: samples of an update.
    """

    def __init__(self, shares: NDArray[np.int64], batch: int) -> None:
        self._batch = count("batch", batch)
        self.parts = shares.shape[1]
        self._sums = np.zeros((len(shares) + 1, self.parts), dtype=np.int64)
        np.cumsum(shares, axis=0, out=self._sums[1:])
        # Two of them make a batch, whose rows are asked for in pieces.
        self._known = functools.lru_cache(maxsize=8)(self._before)

    def before(self, step: int) -> tuple[int, ...]:
        """How many samples of each part `step` updates have used: `parts` numbers whose sum is
        step * batch."""
        return self._known(count("step", step, least=0))

    def _before(self, step: int) -> tuple[int, ...]:
        wanted = step * self._batch
        if wanted == 0:
            return (0,) * self.parts
        reach = self.parts // (2 * self._batch) + 1
        around = range(max(0, step - reach) * _MOMENTS, (step + reach) * _MOMENTS + 1)
        there = bisect.bisect_left(around, wanted, key=lambda t: sum(self._rounded(t)))
        after, found = self._rounded(around[there]), list(self._rounded(around[there] - 1))
        missing = wanted - sum(found)
        for part in range(self.parts):
            taken = min(missing, after[part] - found[part])
            found[part] += taken
            missing -= taken
        return tuple(found)

    def _rounded(self, moment: int) -> list[int]:
        """T_k at a moment, counted in parts of an update, to the nearest whole number."""
        step, inside = divmod(moment, _MOMENTS)
        sums, now = self._row(step)
        one = WHOLE * _MOMENTS
        return [
            (2 * self._batch * (total * _MOMENTS + share * inside) + one) // (2 * one)
            for total, share in zip(sums, now, strict=True)
        ]

    def _row(self, step: int) -> tuple[list[int], list[int]]:
        """Shares of all updates before `step` together, and those of `step`."""
        last = len(self._sums) - 2
        row = min(step, last)
        sums, later = self._sums[row].tolist(), self._sums[row + 1].tolist()
        now = [b - a for a, b in zip(sums, later, strict=True)]
        return [a + (step - row) * share for a, share in zip(sums, now, strict=True)], now
