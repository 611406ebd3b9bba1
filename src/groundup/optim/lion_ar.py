"""LionAR: LionA whose matrices turn, row by row and at constant norm."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from groundup.optim.bias import BiasCorrection, momentum_rms
from groundup.optim.lion import Lion, subtract
from groundup.optim.own import Number, in_dtype, precise, rows_of
from groundup.optim.rotation import rotate_rows
from groundup.optim.rows import dealt_like, local, placed_like, whole_rows
from groundup.optim.turning import RIGHT, Angle, TurningOptimizer


class LionAR(Lion, TurningOptimizer):
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

    State of each parameter: that of `LionA`; ``norm``, [out, 1, …] float32, of what turns;
    ``master``. ``update_scale`` multiplies the angle.

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
            subtract(group, *rows_of(plain, weights, signs, factors))
        angle = self._angle(group) if len(plain) < len(norms) else 0.0
        for w, sign, factor, norm in zip(weights, signs, factors, norms, strict=True):
            if norm is not None:
                _turn(w, sign.neg_(), _at_most_right(angle * factor), norm)


def _turn(weight: Tensor, direction: Tensor, angle: Number, norm: Tensor) -> None:
    rows = whole_rows(weight)
    if rows is weight:
        direction = dealt_like(direction, weight)  # where that is sharded within rows
    else:
        norm = local(norm)
    # A 16-bit weight without a master copy is turned in float32 and rounded.
    turned = rotate_rows(in_dtype(rows, precise(rows.dtype)), direction, angle, norm)
    # Not rows.copy_(): compiled for the CPU with a rate that is a number, that fails (KeyError in
    # inductor's outer-loop fusion, pytorch issue 196570).
    torch._foreach_copy_([local(rows)], [local(placed_like(turned, rows))])


def _at_most_right(angle: Number) -> Number:
    return angle.clamp(max=RIGHT) if isinstance(angle, Tensor) else min(angle, RIGHT)
