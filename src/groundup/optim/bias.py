"""Bias correction of a momentum, and its inverse: a warmup that is a function of β and the step.

A momentum mₙ = Σ (1−β)·β^(n−i)·gᵢ, i = 1…n, that starts at 0 sums weights of 1 − βⁿ. Adam divides
by that, which makes the first updates large; multiplying by it instead (arXiv:2410.23922; the exact
formula is derived here, docs/derivations.md) makes them small.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from groundup._check import unknown

BiasCorrection = Literal["usual", "none", "inverse", "inverse-sqrt"]
_Number = float | Tensor

BIAS_CORRECTIONS: tuple[str, ...] = ("usual", "none", "inverse", "inverse-sqrt")


def check_bias_correction(name: str) -> str:
    if name not in BIAS_CORRECTIONS:
        raise unknown("bias_correction", name, BIAS_CORRECTIONS)
    return name


def momentum_scale(name: str, beta: float, n: _Number) -> _Number:
    """What update number `n` = 1, 2, … multiplies the momentum by.

    ================  ==============  =================================================
    ``usual``         1/(1 − βⁿ)      Adam: an unbiased mean from the first update on
    ``none``          1               the momentum as it is
    ``inverse``       1 − βⁿ          the inverse
    ``inverse-sqrt``  √(1 − β²ⁿ)      its alternative for uncorrelated gradients: ‖mₙ‖
                                      relative to its stationary value
    ================  ==============  =================================================

    Args:
        name: a row of the table.
        beta: in [0, 1).
        n: a number, or a tensor of any shape (the result is then a tensor, but for ``none``).

    >>> momentum_scale("inverse", 0.5, 2)
    0.75
    """
    if name == "usual":
        return 1.0 / weights_sum(beta, n)
    if name == "inverse":
        return weights_sum(beta, n)
    if name == "inverse-sqrt":
        return weights_sum(beta, 2.0 * n) ** 0.5
    return 1.0


def scale_of_usual(name: str, beta: float, n: _Number) -> _Number:
    """What an update with the usual correction is multiplied by to have this one instead.

    momentum_scale(name)·(1 − βⁿ), and exactly 1 for ``usual``.
    """
    if name == "usual":
        return 1.0
    return momentum_scale(name, beta, n) * weights_sum(beta, n)


def weights_sum(beta: float, n: _Number) -> _Number:
    """1 − βⁿ, without the loss of digits at β near 1."""
    exponent = n * math.log(beta) if beta > 0.0 else n * -math.inf
    if isinstance(exponent, Tensor):
        return -torch.expm1(exponent)
    return -math.expm1(exponent)


def momentum_rms(beta: float, nesterov: bool = False) -> float:
    """RMS of the momentum of independent gradients of RMS 1, after many updates.

    m ← β·m + (1 − β)·g gives the gradient of k updates ago the weight (1 − β)·βᵏ; the squares sum
    to (1 − β)/(1 + β). In Nesterov's β·m + (1 − β)·g the weights are (1 − β)·(1 + β) for k = 0 and
    (1 − β)·βᵏ⁺¹ before: β⁴·(1 − β)/(1 + β) + (1 − β)²·(1 + β)². The RMS is the root of that.

    It is the RMS of AdamW's update under such gradients, whose second moment is 1. Derived here for
    arXiv:2410.23922 (docs/derivations.md).

    >>> round(momentum_rms(0.9), 4), round(momentum_rms(0.9, nesterov=True), 4)
    (0.2294, 0.2658)
    """
    late = (1.0 - beta) / (1.0 + beta)
    if not nesterov:
        return math.sqrt(late)
    return math.sqrt(beta**4 * late + ((1.0 - beta) * (1.0 + beta)) ** 2)
