"""The rotational optimizers once more: a row at a time, in float64, with numpy.

Written from arXiv:2305.17212 (algorithm of the rotational variants), with the counts of a row's own
updates and the exact angle.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Vector = np.ndarray


class Adam:
    """m̂/(√v̂ + ε) of one row."""

    def __init__(self, beta1: float, beta2: float, eps: float = 1e-8) -> None:
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.n, self.m, self.v = 0, 0.0, 0.0
        self.share = (1 - beta1) / (1 + beta1)

    def __call__(self, g: Vector) -> Vector:
        self.n += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g**2
        m, v = self.m / (1 - self.beta1**self.n), self.v / (1 - self.beta2**self.n)
        return m / (np.sqrt(v) + self.eps)


class Momentum:
    """Weighted mean of the gradients of one row, with the weights of SGD's buffer."""

    def __init__(self, momentum: float, nesterov: bool = False) -> None:
        self.momentum, self.nesterov = momentum, nesterov
        self.past: list[Vector] = []
        # Sum of squared weights of the gradients over the square of their sum, as n → ∞, times the
        # rate at which decay acts: the random walk in docs/derivations.md, summed up.
        weights = self._weights(4000)
        self.share = np.sum(weights**2) * (1 - momentum)

    def _weights(self, n: int) -> Vector:
        weights = self.momentum ** np.arange(n - 1, -1, -1.0)
        if self.nesterov:
            weights = weights * self.momentum
            weights[-1] += 1
        return weights

    def __call__(self, g: Vector) -> Vector:
        self.past.append(g)
        weights = self._weights(len(self.past))
        return np.tensordot(weights, np.stack(self.past), axes=1) / weights.sum()


class Row:
    """One row: `turn(gradient)` moves `w`."""

    def __init__(
        self,
        w: Vector,
        base: Adam | Momentum,
        scale: Callable[[int], float] = lambda n: 1.0,
    ) -> None:
        self.w, self.base, self.scale = w.astype(float), base, scale
        self.norm = np.linalg.norm(self.w)
        self.squares: list[float] = []

    def turn(self, g: Vector, lr: float, weight_decay: float) -> None:
        if not g.any() and not self.squares:
            return
        u = self.base(g)
        radial = self.w / np.linalg.norm(self.w)
        u = u - radial * (radial @ u)
        if not u.any():
            return
        self.squares.append(u @ u)
        weights = 0.9 ** np.arange(len(self.squares) - 1, -1, -1.0)
        mean = np.average(self.squares, weights=weights)
        eta = math.sqrt(2 * lr * weight_decay * self.base.share)
        angle = eta * math.sqrt(u @ u / mean) * self.scale(len(self.squares))
        self.w = self.norm * (radial * math.cos(angle) - u / np.linalg.norm(u) * math.sin(angle))
