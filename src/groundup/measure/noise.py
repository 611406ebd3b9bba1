"""Signal and noise of gradients.

The gradient of a batch of B is G = (1/B)·Σ g_b, with a mean ḡ over the data and a variance
σ² = E‖g_b − ḡ‖² of one example's (one sequence's), summed over coordinates: E‖G‖² = ‖ḡ‖² + σ²/B.
The signal-to-noise ratio is φ = ‖ḡ‖²/σ², per example; 1/φ is McCandlish et al.'s simple noise
scale, the batch size at which the two are equal.

Estimates: from the gradients of two batch sizes (`two_batches`), and, where there is only one, from
the momentum: `split_by_momentum`, and `phi_from_momentum`, which is simpler and needs a gradient of
constant size.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from groundup._check import positive, within
from groundup.measure._rows import chunks, local_rows, over_ranks


class GradientNoise(NamedTuple):
    """Estimates of ‖ḡ‖² and σ²; unbiased ones are below 0 at times."""

    signal: float
    """‖ḡ‖²."""
    variance: float
    """σ² = tr Σ, of one example's gradient."""

    @property
    def phi(self) -> float:
        """φ = ‖ḡ‖²/σ²: 0 if the signal is not above 0, otherwise inf if the variance is not."""
        if self.signal <= 0:
            return 0.0
        if self.variance <= 0:
            return math.inf
        return self.signal / self.variance


def two_batches(small_sq: float, big_sq: float, small: float, big: float) -> GradientNoise:
    """‖ḡ‖² and σ² from the squared gradient norms of two batch sizes.

    McCandlish et al. 2018, arXiv:1812.06162, appendix A.1:

        ‖ḡ‖² ≈ (B·‖G_B‖² − b·‖G_b‖²)/(B − b),   σ² ≈ (‖G_b‖² − ‖G_B‖²)/(1/b − 1/B)

    Each is unbiased, their quotient is not: average the squared norms over micro-batches (or
    ranks) and over updates before, or the two results after.

    Args:
        small_sq: ‖G_b‖², the squared norm of the mean gradient of `small` examples, averaged.
        big_sq: ‖G_B‖², the same for `big`, before clipping.
        small: b.
        big: B > b.

    Raises:
        ValueError: a size is not above 0, or `big` not above `small`; a square below 0.

    Example:
        >>> two_batches(small_sq=5.0, big_sq=2.0, small=1, big=4)   # 1 + 4/b
        GradientNoise(signal=1.0, variance=4.0)
    """
    positive("small", small)
    positive("big", big)
    within("small_sq", small_sq, 0.0, math.inf)
    within("big_sq", big_sq, 0.0, math.inf)
    if big <= small:
        raise ValueError(f"big={big!r} is not valid: it must be above small={small!r}")
    return GradientNoise(
        signal=(big * big_sq - small * small_sq) / (big - small),
        variance=(small_sq - big_sq) / (1 / small - 1 / big),
    )


def momentum_noise(beta: float, n: Any = math.inf) -> Any:
    """k_n, the share of one gradient's noise that is left in the momentum after n updates.

        k_n = (1 − β)(1 + βⁿ) / ((1 + β)(1 − βⁿ)),   k_1 = 1,   k_∞ = (1 − β)/(1 + β)

    For m̂_n = m_n/(1 − βⁿ), whose weights (1 − β)·β^(n−i)/(1 − βⁿ) sum to 1: k_n is the sum of
    their squares, and E‖m̂_n‖² = ‖ḡ‖² + k_n·σ²/B for independent gradients of one mean.

    Args:
        beta: β in [0, 1).
        n: updates so far, 1 or more; inf for the stationary value. A float, or a tensor.

    Example:
        >>> momentum_noise(0.5, 2)      # weights 1/3 and 2/3
        0.5555555555555556
    """
    power = checked_beta(beta) ** n
    return (1 - beta) * (1 + power) / ((1 + beta) * (1 - power))


def split_by_momentum(
    momentum_sq: float, dot: float, gradient_sq: float, beta: float, n: float, batch_size: float
) -> GradientNoise:
    """‖ḡ‖² and σ² from a gradient and the momentum of the gradients before it.

    Derived here (docs/derivations.md). With signals s and s' of one direction in both, and the
    noise N = σ²/B of a gradient:

        A = ‖m̂_(n−1)‖² = s² + k_(n−1)·N,   D = ⟨m̂_(n−1), g_n⟩ = s·s',   G = ‖g_n‖² = s'² + N

    of which (A − k·N)·(G − N) = D². The smaller root is N, and s² = A − k·N is returned as signal.
    The gradient may shrink or grow between the two, which `phi_from_momentum` takes for more, or
    less, noise. Turning it counts as noise in both.

    Args:
        momentum_sq: A, of the bias-corrected momentum before this update; averaged (over tensors,
            over updates), as `dot` and `gradient_sq`.
        dot: D; below 0 it counts as 0.
        gradient_sq: G.
        beta: β in (0, 1).
        n: the number of this update, 2 or more: the momentum has seen n − 1.
        batch_size: B, in whatever φ is to be per (sequences, as a rule).

    Raises:
        ValueError: a number out of its range.

    Example:
        >>> k = momentum_noise(0.9, 4)
        >>> found = split_by_momentum(4.0 + k, 2.0, 1.0 + 1.0, beta=0.9, n=5, batch_size=8)
        >>> round(found.signal, 6), round(found.variance, 6), round(found.phi, 6)
        (4.0, 8.0, 0.5)
    """
    within("momentum_sq", momentum_sq, 0.0, math.inf)
    within("gradient_sq", gradient_sq, 0.0, math.inf)
    positive("batch_size", batch_size)
    if beta == 0:
        raise ValueError("beta=0 is not valid: without momentum φ needs two batch sizes")
    if not n >= 2:
        raise ValueError(f"n={n!r} is not valid: it must be the number of an update, 2 or more")
    signal, noise = split(momentum_sq, max(0.0, dot), gradient_sq, momentum_noise(beta, n - 1))
    return GradientNoise(signal, noise * batch_size)


def split(momentum_sq: Any, dot: Any, gradient_sq: Any, k: Any) -> tuple[Any, Any]:
    """s² and N of `split_by_momentum`, for D ≥ 0; floats, or tensors of one shape."""
    root = ((momentum_sq - k * gradient_sq) ** 2 + 4 * k * dot * dot) ** 0.5
    # Written so that nothing cancels where there is hardly any noise.
    noise = 2 * (momentum_sq * gradient_sq - dot * dot) / (momentum_sq + k * gradient_sq + root)
    return (momentum_sq - k * gradient_sq + root) / 2, noise


def phi_from_momentum(ratio: float, beta: float, n: float, batch_size: float) -> float:
    """φ from the norms of momentum and gradient alone; derived here (docs/derivations.md).

        B·φ ≈ (r − k_n)/(1 − r),   r = ‖m̂_n‖²/‖g_n‖²

    r is k_n without signal and 1 without noise; outside, φ is 0 or inf. nan at n = 1, where m̂ = g
    tells nothing. The numerator and the denominator of r are each to be averaged (over tensors,
    over updates) before dividing.

    It takes ḡ as constant over the 1/(1 − β) updates that the momentum remembers. Where B·φ is
    large, 1 − r is small, and a gradient that shrinks by a part 1/(B·φ) meanwhile makes φ infinite:
    see `split_by_momentum`. One that turns makes φ too small.

    Args:
        ratio: r.
        beta: β in [0, 1).
        n: updates that the momentum has seen, this one counted.
        batch_size: B, in whatever φ is to be per (sequences, as a rule).

    Raises:
        ValueError: β = 0 (the momentum is the gradient), or a number out of its range.

    Example:
        >>> phi_from_momentum(ratio=0.5, beta=0.9, n=float("inf"), batch_size=8)
        0.1118421052631579
    """
    within("ratio", ratio, 0.0, math.inf)
    positive("batch_size", batch_size)
    if beta == 0:
        raise ValueError("beta=0 is not valid: without momentum φ needs two batch sizes")
    if not n >= 1:
        raise ValueError(f"n={n!r} is not valid: it must be a number of updates of at least 1")
    if n == 1:
        return math.nan
    if ratio >= 1:
        return math.inf
    return max(0.0, ratio - momentum_noise(beta, n)) / (1 - ratio) / batch_size


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the angle between two tensors taken as vectors, as of a gradient and a momentum.

    0-dim float64, in [−1, 1]; nan if one of them is 0.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"b has shape {list(b.shape)}, but must have that of a, {list(a.shape)}")
    dot, a_sq, b_sq = dots(a, b)
    return (dot / (a_sq * b_sq).sqrt()).clamp(-1.0, 1.0)


def dots(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩, ‖a‖² and ‖b‖²: [3] float64. DTensors are summed over their ranks."""
    total = sum(
        torch.stack([(x * y).sum(), (x * x).sum(), (y * y).sum()])
        for x, y in chunks(local_rows(a), local_rows(b))
    )
    assert isinstance(total, Tensor)
    return over_ranks(total[None], [a])[0]


def checked_beta(beta: float) -> float:
    if within("beta", beta, 0.0, 1.0) == 1:
        raise ValueError("beta=1 is not valid: it must be in [0, 1)")
    return beta
