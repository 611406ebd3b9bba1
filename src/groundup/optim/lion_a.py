"""LionA: Lion with one momentum and steps as long as AdamW's."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from groundup.optim.bias import BiasCorrection
from groundup.optim.lion import Lion, subtract
from groundup.optim.own import Number


class LionA(Lion):
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
        subtract(group, weights, signs, factors)
