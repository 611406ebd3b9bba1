"""Relative representation change: how far an update moves what a linear layer says.

RRC = ‖ΔW·x‖/‖W·x‖ over a batch of inputs x (arXiv:2410.23922). An update of a fixed size moves the
outputs for the examples it was computed from the more, the better their gradients agree, that is,
the higher the signal-to-noise ratio φ: `alignment` is that dependence, derived in
docs/derivations.md.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from groundup._check import count, positive
from groundup.measure.noise import checked_beta, momentum_noise


def representation_change(before: Tensor, after: Tensor, inputs: Tensor) -> Tensor:
    """RRC = ‖(W' − W)·X‖/‖W·X‖, norms over all inputs and outputs together: 0-dim float64.

    The bias takes no part. Computed in float64; inf where only W·X is 0, nan where both are.

    Args:
        before: W, [out, in, …] (what follows `out` is flattened).
        after: W', of the same shape.
        inputs: X, [..., in]: as many as there are.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> W = torch.eye(2)
        >>> representation_change(W, W + torch.tensor([[0.0, 0.1], [0.0, 0.0]]), torch.ones(1, 2))
        tensor(0.0707, dtype=torch.float64)
    """
    change, size = _squares(before, after, inputs)
    return (change.sum() / size.sum()).sqrt()


def representation_changes(before: Tensor, after: Tensor, inputs: Tensor) -> Tensor:
    """‖(W' − W)·x‖/‖W·x‖ for each input x: [N] float64, N = inputs.numel()/in.

    Args, Raises: as for `representation_change`.
    """
    change, size = _squares(before, after, inputs)
    return (change / size).sqrt()


def _squares(before: Tensor, after: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    w, moved = (t.detach().flatten(1) for t in (before, after))
    if w.shape != moved.shape:
        raise ValueError(
            f"after has shape {list(after.shape)}, but must have that of before, "
            f"{list(before.shape)}"
        )
    if inputs.shape[-1] != w.shape[1]:
        raise ValueError(
            f"inputs have {inputs.shape[-1]} features, but the weight takes {w.shape[1]}"
        )
    # The difference of two weights has few digits left: it is taken in float64, the products need
    # no more than float32.
    dtype = torch.promote_types(w.dtype, torch.float32)
    x = inputs.detach().reshape(-1, w.shape[1]).to(dtype)
    change = (moved.to(torch.float64) - w.to(torch.float64)).to(dtype)
    sizes = ((x @ m.T).square().sum(1, dtype=torch.float64) for m in (change, w.to(dtype)))
    return next(sizes), next(sizes)


def alignment(
    phi: Any,
    batch_size: float,
    beta: float = 0.0,
    *,
    n: Any = math.inf,
    nesterov: bool = False,
    width: float = math.inf,
) -> Any:
    """a(φ), the alignment of an update with the gradients of the examples it was made from.

    The cosine of the momentum's direction and one example's gradient, to which the relative
    representation change of an update of fixed size is proportional; derived here:

        a(φ) = (φ + c/B)/√((φ + k/B)·(φ + 1))

    c: the weight of the newest gradient in the direction; k: the sum of all squared weights, if the
    weights sum to 1. Plain momentum has c = 1 − β, k = (1 − β)/(1 + β) (β = 0: both 1); Nesterov's,
    β·m + (1 − β)·g, has c = 1 − β² and k = β⁴(1 − β)/(1 + β) + c². a rises from a(0) = c/√(k·B)
    (plain: √((1 − β²)/B)) to 1. Nesterov's with β above 0.73 (c > 2k) first falls a little, to
    2√(k(c − k))/c of a(0): 0.89 at β = 0.98.

    It is exact for one output unit and where the outputs' changes are parallel to their gradients,
    otherwise a lower bound; and for a width well above B. With `width` d, what other examples do to
    an output by chance is added: √(a² + (1 − a²)/d), which cannot fall below 1/√d.

    Args:
        phi: φ per example, 0 to inf; a float or a tensor.
        batch_size: B, examples per update.
        beta: β of the momentum, in [0, 1).
        n: updates that the momentum has seen: a finite number takes the weights of that moment, at
            n = 1 those of β = 0. A float or a tensor.
        nesterov: the direction is Nesterov's.
        width: d, the number of inputs of the layer.

    Raises:
        ValueError: a number out of its range.

    Example:
        >>> round(alignment(0.0, batch_size=480, beta=0.9), 4), alignment(float("inf"), 480, 0.9)
        (0.0199, 1.0)
    """
    share: Any
    if isinstance(phi, Tensor):
        share = torch.where(phi.isinf(), 1.0, phi / (1 + phi))
    elif not phi >= 0:
        raise ValueError(f"phi={phi!r} is not valid: it must be at least 0")
    else:
        share = 1.0 if phi == math.inf else phi / (1 + phi)
    return alignment_of_share(share, batch_size, beta, n=n, nesterov=nesterov, width=width)


def alignment_of_share(
    share: Any,
    batch_size: float,
    beta: float = 0.0,
    *,
    n: Any = math.inf,
    nesterov: bool = False,
    width: float = math.inf,
) -> Any:
    """a(φ) from f = φ/(1 + φ) in [0, 1]: (f + (1 − f)·c/B)/√(f + (1 − f)·k/B); see `alignment`."""
    newest, squares = direction_weights(beta, n, nesterov)
    positive("batch_size", batch_size)
    if width != math.inf:
        count("width", width)
    rest = (1 - share) / batch_size
    a = (share + rest * newest) / (share + rest * squares) ** 0.5
    return a if width == math.inf else (a * a + (1 - a * a) / width) ** 0.5


def direction_weights(beta: float, n: Any = math.inf, nesterov: bool = False) -> tuple[Any, Any]:
    """(c, k): the weight of the newest gradient in an update's direction, and the sum of all
    squares, with weights that sum to 1.

    Nesterov's direction after n updates is β·m_n + (1 − β)·g_n, whose weights sum to 1 − βⁿ⁺¹.
    """
    checked_beta(beta)
    power = beta**n
    if not nesterov:
        return (1 - beta) / (1 - power), momentum_noise(beta, n)
    total = 1 - beta * power
    newest = (1 - beta) * (1 + beta)
    # Older ones: (1 − β)·β^(j+1) for j = 1 … n − 1.
    older = (1 - beta) * (beta**4 - (beta * power) ** 2) / (1 + beta)
    return newest / total, (newest**2 + older) / total**2
