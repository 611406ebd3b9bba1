"""LionA and LionAR written out in float64 with numpy, one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

Array = np.ndarray


@cache
def corrected(name: str, beta: float, n: int) -> float:
    """From the weights of the n gradients in a momentum."""
    weights = (1 - beta) * beta ** np.arange(n)
    endless = (1 - beta) * beta ** np.arange(100_000)
    factors = {
        "none": 1.0,
        "usual": 1.0,
        "inverse": weights.sum(),
        "inverse-sqrt": np.sqrt((weights**2).sum() / (endless**2).sum()),
    }
    return float(factors[name])


@cache
def size(beta: float, nesterov: bool) -> float:
    """ℓ2 norm of the weights of past gradients in the direction."""
    weights = (1 - beta) * beta ** np.arange(100_000)
    if nesterov:
        weights = beta * weights
        weights[0] += 1 - beta
    return float(np.sqrt((weights**2).sum()))


def signs(grads: Sequence[Array], beta: float, nesterov: bool) -> Iterator[Array]:
    m = np.zeros_like(grads[0])
    for g in grads:
        m = beta * m + (1 - beta) * g
        yield np.sign(beta * m + (1 - beta) * g if nesterov else m)


def lion_a(
    w: Array,
    grads: Sequence[Array],
    lrs: Sequence[float],
    *,
    beta: float = 0.9,
    weight_decay: float = 0.1,
    nesterov: bool = False,
    bias_correction: str = "none",
    scale: float = 1.0,
) -> Array:
    for n, (d, lr) in enumerate(zip(signs(grads, beta, nesterov), lrs, strict=True), 1):
        step = lr * size(beta, nesterov) * corrected(bias_correction, beta, n) * scale
        w = w - lr * weight_decay * w - step * d
    return w


def lion_ar(
    w: Array,
    grads: Sequence[Array],
    lrs: Sequence[float],
    *,
    beta: float = 0.9,
    weight_decay: float = 0.1,
    nesterov: bool = False,
    bias_correction: str = "none",
    angle: str = "sqrt",
    scale: float = 1.0,
) -> Array:
    """w [out, in]: each row in the plane of two orthonormal vectors, itself and a tangent."""
    norms = [float(np.linalg.norm(row)) for row in w]
    for n, (d, lr) in enumerate(zip(signs(grads, beta, nesterov), lrs, strict=True), 1):
        full = np.sqrt(2 * weight_decay) * size(beta, nesterov)
        turn = full * (np.sqrt(lr) if angle == "sqrt" else lr / np.sqrt(lrs[0]))
        turn *= corrected(bias_correction, beta, n) * scale
        rows = []
        for row, along, norm in zip(w, d, norms, strict=True):
            ahead = row / np.linalg.norm(row)
            aside = -(along - ahead * (ahead @ along))
            length = np.linalg.norm(aside)
            if length < 1e-9:
                rows.append(row)
                continue
            rows.append(norm * (ahead * np.cos(turn) + aside / length * np.sin(turn)))
        w = np.stack(rows)
    return w


def angles(before: Array, after: Array) -> Array:
    """Between rows, in float64, exact for small ones too: 2·atan2(‖a − b‖, ‖a + b‖)."""
    a = before / np.linalg.norm(before, axis=1, keepdims=True)
    b = after / np.linalg.norm(after, axis=1, keepdims=True)
    return 2 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
