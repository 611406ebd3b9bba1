"""LionA, whose steps are as long as AdamW's, and LionAR, which turns the rows of matrices."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from groundup.optim.bias import (
    BiasCorrection,
    check_bias_correction,
    momentum_rms,
    momentum_scale,
)
from groundup.optim.own import (
    Number,
    OwnOptimizer,
    batches,
    check_momentum,
    in_dtype,
    number,
    precise,
    rows_of,
    times_,
)
from groundup.optim.rotation import rotate_rows
from groundup.optim.rows import dealt_like, local, placed_like, whole_rows
from groundup.optim.turning import RIGHT, Angle, TurningOptimizer


class SignOptimizer(OwnOptimizer):
    """Base of both: the sign of one momentum. `_move` says what becomes of it."""

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


class LionA(SignOptimizer):
    """Sign of a momentum, with the learning rate and weight decay of AdamW.

    For update number n = 1, 2, … of a tensor::

        m ← β·m + (1 − β)·g
        d = sign(m)                        or, with Nesterov momentum, sign(β·m + (1 − β)·g)
        w ← w − lr·weight_decay·w − lr·s·c·d

    with s = √((1 − β)/(1 + β)), the RMS of AdamW's update when gradients are independent from step
    to step, so that both take the same rate (Nesterov: `groundup.optim.bias.momentum_rms`). Every
    element moves by exactly lr·s·c, the first update not more than others: its ℓ2 norm is bounded,
    while AdamW's is √((1 + β)/(1 − β)) times as long at first.

    From arXiv:2410.23922, section 4; the formula of s is derived here (docs/derivations.md). But
    for s it is Lion (arXiv:2302.06675) of β₁ = β₂ = β, with Nesterov momentum of β₁ = β², β₂ = β.

    Args:
        params: as for any torch optimizer; a group may have each of the settings for itself.
        lr: the rate, ≥ 0: a number or a 0-dim tensor, which a schedule may fill in place.
        beta: β in [0, 1).
        weight_decay: ≥ 0, decoupled and multiplied by the rate, as in `torch.optim.AdamW`.
        nesterov: look ahead by one gradient.
        bias_correction: c. "inverse": 1 − βⁿ, a warmup over some 1/(1 − β) updates;
            "inverse-sqrt": √(1 − β²ⁿ); "none" and "usual": 1. The usual correction divides by a sum
            of weights, which does not change a sign.
        foreach: one call for many tensors; None: on CUDA, outside of torch.compile. The numbers
            are the same.
        maximize: ascend.

    State of each parameter: ``step``; ``exp_avg``, m, in float32 for bfloat16 and float16
    parameters, whose update is computed in float32 too. ``update_scale``, a 0-dim tensor that
    others may put there, multiplies the step but not the decay.

    Raises:
        ValueError: for a setting that is not valid and for parameters that are not real
            floating-point tensors, at construction; for a sparse gradient, in `step`.

    Example::

        optimizer = gu.optim.LionA(model.parameters(), lr=2e-3, weight_decay=0.1)
    """

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-3,
        beta: float = 0.9,
        weight_decay: float = 0.1,
        nesterov: bool = False,
        bias_correction: BiasCorrection = "none",
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "beta": beta,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "bias_correction": bias_correction,
                "foreach": foreach,
                "maximize": maximize,
            },
        )

    def _move(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        signs: list[Tensor],
        factors: list[Number],
        norms: list[Tensor | None],
    ) -> None:
        _subtract(group, weights, signs, factors)


class LionAR(SignOptimizer, TurningOptimizer):
    """LionA that bounds the angle of an update: each row of a matrix turns by a given angle.

    For a row w of a matrix, d and c as in `LionA`::

        d ← d − w·⟨w, d⟩/‖w‖²                             its tangential part
        w ← P(w·cos θ − ‖w‖·d/‖d‖·sin θ),  θ = √(2·lr·weight_decay)·s·c

    where P puts the row back to the norm it had at the first update. There is no decay:
    weight_decay acts through θ, the angle by which AdamW of β₁ = β turns a row in the equilibrium
    of updates and decay (arXiv:2305.17212). A row whose tangential part is zero does not move: at
    α = 0 of a residual warmup the gradients of a branch are exactly zero. Other parameters
    (vectors, by default) are updated as by `LionA`.

    From arXiv:2410.23922, section 4; the formulas are derived here (docs/derivations.md).

    The angle follows a schedule as √lr: at a quarter of the rate, rows turn half as fast.
    ``angle="linear"`` makes it θ(peak_lr)·lr/peak_lr, peak_lr being the rate at construction, which
    is kept in the parameter group. θ above π/2, from where a row would come back, counts as π/2.

    Norms and angles are exact to float32 rounding (some 1e-7 in radians), with float32 weights or
    float32 master weights. bfloat16 and float16 cannot hold small angles, which is warned about.

    Args:
        params: as for any torch optimizer; a group may have each of the settings for itself. A
            group's ``rotational`` says whether its parameters turn.
            Its ``out_dim`` (0) says which dimension numbers the output units, whose incoming
            weights turn: 1 where weights are [in, out], as in transformers' Conv1D (`groups` does).
        lr: the rate, ≥ 0: a number or a 0-dim tensor, which a schedule may fill in place.
        beta, nesterov, bias_correction, foreach, maximize: see `LionA`.
        weight_decay: ≥ 0; above 0 where anything turns.
        angle: "sqrt" or "linear", what follows a schedule.
        rotational: for all groups that do not say it themselves. None: parameters of two
            dimensions or more, with two elements or more in a row. A row of an embedding is the
            vector of a token: give it False unless it shall keep its norm.
        master_weights: keep bfloat16 and float16 parameters in float32 in the state, the parameter
            being its rounding. Taken from the parameter at the first update: who loads weights
            later loads this state too.

    State of each parameter: that of `LionA`; ``norm``, [out, 1, …] float32 ([1, out]
    with out_dim=1), of what turns; ``master``. ``update_scale`` multiplies the angle.

    Distributed: parameters sharded by rows (FSDP2) or replicated are turned without communication,
    others (tensor parallelism by columns) with a reduction over the ranks for each.

    Raises:
        ValueError: for a setting that is not valid, an angle above π/2, a weight decay of 0 where
            anything turns, at construction; for a row of norm 0, which cannot turn, at the first
            update with a rate above 0.

    Example::

        optimizer = gu.optim.LionAR(
            [{"params": matrices}, {"params": embeddings, "rotational": False}],
            lr=2e-3, beta=0.98, nesterov=True, bias_correction="inverse",
        )
    """

    _norm: ClassVar[str] = "norm"

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-3,
        beta: float = 0.9,
        weight_decay: float = 0.1,
        nesterov: bool = False,
        bias_correction: BiasCorrection = "none",
        angle: Angle = "sqrt",
        rotational: bool | None = None,
        master_weights: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "beta": beta,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "bias_correction": bias_correction,
                "angle": angle,
                "rotational": rotational,
                "master_weights": master_weights,
                "foreach": foreach,
                "maximize": maximize,
            },
        )

    def _rms(self, group: dict[str, Any]) -> float:
        return momentum_rms(group["beta"], group["nesterov"])

    def _move(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        signs: list[Tensor],
        factors: list[Number],
        norms: list[Tensor | None],
    ) -> None:
        plain = [i for i, norm in enumerate(norms) if norm is None]
        if plain:
            _subtract(group, *rows_of(plain, weights, signs, factors))
        angle = self._angle(group) if len(plain) < len(norms) else 0.0
        for w, sign, factor, norm in zip(weights, signs, factors, norms, strict=True):
            if norm is not None:
                _turn(w, sign.neg_(), _at_most_right(angle * factor), norm, group["out_dim"])


# ---------------------------------------------------------------------- the parts of an update


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


def _subtract(
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
        times_(signs, sizes)
        torch._foreach_sub_(exact, signs)
    for w, e in zip(own, exact, strict=True):
        if e is not w:  # computed in float32, rounded once
            w.copy_(e)


def _turn(weight: Tensor, direction: Tensor, angle: Number, norm: Tensor, out_dim: int) -> None:
    rows = whole_rows(weight, out_dim)
    if rows is weight:
        direction = dealt_like(direction, weight)  # where that is sharded within rows
    else:
        norm = local(norm)
    # A 16-bit weight without a master copy is turned in float32 and rounded.
    turned = rotate_rows(in_dtype(rows, precise(rows.dtype)), direction, angle, norm, out_dim)
    # Not rows.copy_(): compiled for the CPU with a rate that is a number, that fails (KeyError in
    # inductor's outer-loop fusion, pytorch issue 196570).
    torch._foreach_copy_([local(rows)], [local(placed_like(turned, rows))])


def _at_most_right(angle: Number) -> Number:
    return angle.clamp(max=RIGHT) if isinstance(angle, Tensor) else min(angle, RIGHT)
