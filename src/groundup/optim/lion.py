"""What LionA and LionAR have in common: one momentum, the sign of it, and steps of known size."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from groundup.optim.bias import check_bias_correction, momentum_rms, momentum_scale
from groundup.optim.own import (
    Number,
    OwnOptimizer,
    batches,
    check_momentum,
    in_dtype,
    number,
    precise,
    rows_of,
)
from groundup.optim.rows import local, placed_like


class Lion(OwnOptimizer):
    """The base of both. `_move` says what becomes of the signs."""

    _buffers: ClassVar[tuple[str, ...]] = ("exp_avg",)
    _columns: ClassVar[tuple[str, ...]] = ("exp_avg", "step", "update_scale", "norm", "master")

    def _move(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        signs: list[Tensor],
        factors: list[Number],
        norms: list[Tensor | None],
    ) -> None:
        """Update `weights` (parameters or their master copies) against the signs, by one foreach
        call where there is one.

        Args:
            signs: new tensors, the parts of this rank.
            factors: what multiplies each step: bias correction and ``update_scale``.
            norms: ``state["norm"]``, where there is one.
        """
        raise NotImplementedError

    def _check(self, group: dict[str, Any]) -> None:
        check_momentum("beta", group["beta"])
        check_bias_correction(group["bias_correction"])
        super()._check(group)

    def _update(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], *columns: list[Any]
    ) -> None:
        momenta, steps, scales, norms, masters = columns
        torch._foreach_add_(steps, 1.0)
        factors = [_factor(group, n, c) for n, c in zip(steps, scales, strict=True)]
        kept = [p if m is None else m for p, m in zip(params, masters, strict=True)]
        for batch in batches(group, params):
            signs = _signs(group, *rows_of(batch, params, grads, momenta))
            weights, sizes, lengths = rows_of(batch, kept, factors, norms)
            self._move(group, weights, signs, sizes, lengths)
        for p, master in zip(params, masters, strict=True):
            if master is not None:
                p.copy_(master)


def _signs(
    group: dict[str, Any], params: list[Tensor], grads: list[Tensor], momenta: list[Tensor]
) -> list[Tensor]:
    """The momenta moved on by the gradients, in place; the directions."""
    new, m = 1.0 - group["beta"], [local(momentum) for momentum in momenta]
    g = [
        in_dtype(local(placed_like(grad, p)), momentum.dtype)
        for grad, p, momentum in zip(grads, params, momenta, strict=True)
    ]
    if group["maximize"]:  # as in torch, the momentum is that of what is descended
        g = list(torch._foreach_neg(g))
    torch._foreach_lerp_(m, g, new)
    if not group["nesterov"]:
        return list(torch._foreach_sign(m))
    ahead = torch._foreach_lerp(m, g, new)
    torch._foreach_sign_(ahead)
    return list(ahead)


def _factor(group: dict[str, Any], step: Tensor, scale: Tensor | None) -> Number:
    correction = group["bias_correction"]
    factor: Number = 1.0
    if correction.startswith("inverse"):  # the others do not change a sign
        factor = momentum_scale(correction, group["beta"], number(step))
    return factor if scale is None else factor * number(scale)


def subtract(
    group: dict[str, Any], weights: list[Tensor], signs: list[Tensor], factors: list[Number]
) -> None:
    """LionA's update of this rank's parts: w ← (1 − lr·λ)·w − lr·s·factor·sign."""
    lr, decay = number(group["lr"]), number(group["weight_decay"])
    size = lr * momentum_rms(group["beta"], group["nesterov"])
    sizes = [size * factor for factor in factors]
    own = [local(weight) for weight in weights]
    exact = [in_dtype(w, precise(w.dtype)) for w in own]
    if isinstance(decay, Tensor) or decay != 0.0:
        torch._foreach_mul_(exact, 1.0 - lr * decay)
    floats = [each for each in sizes if not isinstance(each, Tensor)]
    if len(floats) == len(sizes) and len(set(floats)) == 1:
        # Not _foreach_sub_, whose alpha inductor of torch 2.8 does not see.
        torch._foreach_add_(exact, signs, alpha=-floats[0])
    else:
        for sign, each in zip(signs, sizes, strict=True):
            sign.mul_(each)
        torch._foreach_sub_(exact, signs)
    for w, e in zip(own, exact, strict=True):
        if e is not w:  # computed in float32, rounded once
            w.copy_(e)
