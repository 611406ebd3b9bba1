"""Rotational AdamW and SGD (arXiv:2305.17212): every row turns by the angle of its equilibrium.

Under weight decay, a weight in front of a normalization reaches an equilibrium in which an update
turns it by an angle that depends on the settings alone (`adamw_angle`, `sgd_angle`). Before, each
row turns faster or more slowly than that: the transient that a warmup of the rate tides over.
Rotational updates turn every row by that angle from the first update on, and keep its norm.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from groundup._check import positive
from groundup.optim.bias import (
    BiasCorrection,
    check_bias_correction,
    momentum_rms,
    momentum_scale,
    weights_sum,
)
from groundup.optim.equilibrium import EquilibriumOptimizer
from groundup.optim.own import Number, check_momentum, number, times_
from groundup.optim.turning import Angle


def adamw_angle(lr: float, weight_decay: float, beta1: float = 0.9) -> float:
    """RMS angle in radians by which an update turns a weight in AdamW's equilibrium.

    √(2·lr·λ·(1 − β₁)/(1 + β₁)), arXiv:2305.17212: for decay multiplied by the rate, as torch's is,
    gradients that are independent from step to step, and to first order in lr·λ.

    >>> round(adamw_angle(1e-3, 0.1), 5)
    0.00324
    """
    return (2.0 * lr * weight_decay) ** 0.5 * momentum_rms(beta1)


def sgd_angle(
    lr: float, weight_decay: float, momentum: float = 0.9, nesterov: bool = False
) -> float:
    """The same for SGD with momentum α, decay added to the gradient: √(2·lr·λ/(1 + α)).

    With Nesterov momentum √(2·lr·λ·(1 + 2α − 2α³)/(1 + α)), derived here (docs/derivations.md); the
    paper gives none, and its authors' program uses the former.
    """
    return (2.0 * lr * weight_decay) ** 0.5 * _sgd_rms(momentum, nesterov)


def _sgd_rms(momentum: float, nesterov: bool) -> float:
    wider = 1.0 + 2.0 * momentum - 2.0 * momentum**3 if nesterov else 1.0
    return (wider / (1.0 + momentum)) ** 0.5


class RotationalAdamW(EquilibriumOptimizer):
    """AdamW whose matrices turn by the equilibrium angle, row by row, at constant norm.

    For a row w of a rotational parameter, u = m̂/(√v̂ + ε) without its radial part::

        q ← 0.9·q + 0.1·‖u‖²,  q̂ = q/(1 − 0.9ⁿ)
        w ← w turned by η_r·‖u‖/√q̂ towards −u,  η_r = √(2·lr·weight_decay·(1 − β₁)/(1 + β₁))

    so that η_r is the root mean square of the angles. There is no decay: weight_decay acts through
    η_r. Other parameters are updated as by AdamW.

    n counts the updates of the row that were not zero: one that gets its first gradient late
    (behind a residual branch at α = 0) starts like any other, bias corrections included. In its
    first 1/(1 − β₁) updates the angle is η_r where successive gradients agree and falls to 2/3·η_r
    where they are independent, as m̂ shrinks and its average follows.

    What nothing rescales needs a norm that is learned: an output head of small initial weights
    keeps its logits small. Give it ``rotational=False``, and embeddings too unless their vectors
    shall keep their norms. In runs short against 1/(lr·weight_decay) updates AdamW never comes to
    its equilibrium and turns faster than η_r.

    Differences from the authors' program (github.com/epfml/REQ): it counts n for a tensor, turns by
    arctan of the angle, and centres the rows unless told otherwise, which this does not.

    The angle follows a schedule as √lr: at a quarter of the rate, rows turn half as fast.
    ``angle="linear"`` makes it η_r(peak_lr)·lr/peak_lr, peak_lr being the rate at construction,
    which is kept in the parameter group.

    Args:
        params: as for any torch optimizer; a group may have each of the settings for itself.
            A group's ``out_dim`` (0) says which dimension numbers the output units, whose incoming
            weights turn: 1 where weights are [in, out], as in transformers' Conv1D (`groups` does).
        lr: a number or a 0-dim tensor, which a schedule may fill in place.
        betas: β₁, β₂ in [0, 1).
        eps: ε > 0.
        weight_decay: λ ≥ 0; above 0 where anything is rotational.
        rotational: for all groups that do not say it themselves. None: parameters of two dimensions
            or more, with two elements or more in a row.
        angle: "sqrt" or "linear".
        bias_correction: "inverse" and "inverse-sqrt" multiply the angle by 1 − β₁ⁿ and √(1 − β₁²ⁿ),
            a warmup. "usual" and "none" do not change it, as q̂ divides
            them out. Of other parameters it scales the momentum, see `groundup.optim.bias`.
        foreach: one call for many tensors; None: on CUDA, outside of torch.compile.
        maximize: ascend.
        master_weights: keep float32 weights in the state for bfloat16 and float16 parameters, which
            cannot hold small turns (without, there is a warning). They are taken from the
            parameters at the first update.

    Raises:
        ValueError: for a setting that is not valid, at construction; for a rotational row of norm 0
            and for sparse gradients, at the first update.

    State of each parameter: ``step``; ``exp_avg``, ``exp_avg_sq``, as in torch, and ``master``, all
    in float32 for bfloat16 and float16 parameters; of what turns ``row_norm``, ``row_square`` (q)
    and ``row_step`` (n), [out, 1, …] float32 ([1, out] with out_dim=1).
    ``update_scale``, a 0-dim tensor that others may put there, multiplies the angle, and of other
    parameters the update but not the decay.

    Distributed: parameters sharded by rows (FSDP2) or replicated are turned without communication,
    others (tensor parallelism by columns) with reductions over the ranks.

    Example::

        optimizer = gu.optim.RotationalAdamW(
            [{"params": matrices}, {"params": embeddings_and_head, "rotational": False}],
            lr=2e-3, weight_decay=0.1,
        )
    """

    _buffers = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        rotational: bool | None = None,
        angle: Angle = "sqrt",
        bias_correction: BiasCorrection = "usual",
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        master_weights: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "rotational": rotational,
            "angle": angle,
            "bias_correction": bias_correction,
            "foreach": foreach,
            "maximize": maximize,
            "master_weights": master_weights,
        }
        super().__init__(params, defaults)

    def _check(self, group: dict[str, Any]) -> None:
        if len(group["betas"]) != 2:
            raise ValueError(f"betas={group['betas']!r} is not valid: it must be two numbers")
        for i, beta in enumerate(group["betas"]):
            check_momentum(f"betas[{i}]", beta)
        positive("eps", group["eps"])
        check_bias_correction(group["bias_correction"])
        super()._check(group)

    def _directions(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        grads: list[Tensor],
        buffers: list[tuple[Tensor, ...]],
        counts: list[Any],
        turning: bool,
    ) -> list[Tensor]:
        beta1, beta2 = group["betas"]
        firsts, seconds = (list(kind) for kind in zip(*buffers, strict=True))
        torch._foreach_lerp_(firsts, grads, 1.0 - beta1)
        torch._foreach_mul_(seconds, beta2)
        torch._foreach_addcmul_(seconds, grads, grads, 1.0 - beta2)
        roots = list(torch._foreach_sqrt(seconds))
        times_(roots, [weights_sum(beta2, n) ** -0.5 for n in counts])
        torch._foreach_add_(roots, group["eps"])
        updates = list(torch._foreach_div(firsts, roots))
        name = "usual" if turning else group["bias_correction"]
        times_(updates, [momentum_scale(name, beta1, n) for n in counts])
        return updates

    def _unbiased(self, group: dict[str, Any], n: Any, rows: Tensor) -> Number:
        beta1, beta2 = group["betas"]
        first = weights_sum(beta1, n) / weights_sum(beta1, rows)
        return first * (weights_sum(beta2, rows) / weights_sum(beta2, n)) ** 0.5

    def _rms(self, group: dict[str, Any]) -> float:
        return momentum_rms(group["betas"][0])

    def _turn_scale(self, group: dict[str, Any], rows: Tensor) -> Number:
        name = group["bias_correction"]
        return momentum_scale(name, group["betas"][0], rows) if name.startswith("inverse") else 1.0

    def _decoupled(self, group: dict[str, Any]) -> Number:
        return group["weight_decay"]


class RotationalSGD(EquilibriumOptimizer):
    """SGD with momentum whose matrices turn by the equilibrium angle, row by row, at constant norm.

    As `RotationalAdamW`, with b ← α·b + g, u = b (Nesterov: g + α·b) divided by the sum of the
    weights in it, and η_r = √(2·lr·weight_decay/(1 + α)) (Nesterov: `sgd_angle`). Without that
    division, as in the authors' program, u would grow for 1/(1 − α) updates and outrun its average:
    rows would turn by up to 1.4·η_r.

    Other parameters are updated as by `torch.optim.SGD`, whose decay is part of the gradient; there
    "update_scale" multiplies both.

    Args:
        params, lr, rotational, angle, foreach, maximize, master_weights: see `RotationalAdamW`.
        momentum: α in [0, 1).
        weight_decay: λ ≥ 0; above 0 where anything is rotational.
        nesterov: needs a momentum.

    Raises:
        ValueError: see `RotationalAdamW`.

    Example::

        optimizer = gu.optim.RotationalSGD(model.parameters(), lr=0.1, weight_decay=5e-4)
    """

    _buffers = ("momentum_buffer",)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        nesterov: bool = False,
        rotational: bool | None = None,
        angle: Angle = "sqrt",
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        master_weights: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "rotational": rotational,
            "angle": angle,
            "foreach": foreach,
            "maximize": maximize,
            "master_weights": master_weights,
        }
        super().__init__(params, defaults)

    def _check(self, group: dict[str, Any]) -> None:
        check_momentum("momentum", group["momentum"])
        if group["nesterov"] and group["momentum"] == 0.0:
            raise ValueError("nesterov=True is not valid with momentum=0: give a momentum above 0")
        super()._check(group)

    def _directions(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        grads: list[Tensor],
        buffers: list[tuple[Tensor, ...]],
        counts: list[Any],
        turning: bool,
    ) -> list[Tensor]:
        momentum, nesterov = group["momentum"], group["nesterov"]
        if not turning:
            decay = number(group["weight_decay"])
            grads = [g + decay * w for g, w in zip(grads, weights, strict=True)]
        sums = [buffer for (buffer,) in buffers]
        torch._foreach_mul_(sums, momentum)
        torch._foreach_add_(sums, grads)
        updates = list(torch._foreach_mul(sums, momentum if nesterov else 1.0))
        if nesterov:
            torch._foreach_add_(updates, grads)
        return updates

    def _unbiased(self, group: dict[str, Any], n: Any, rows: Tensor) -> Number:
        return 1.0 / weights_sum(group["momentum"], rows + float(group["nesterov"]))

    def _rms(self, group: dict[str, Any]) -> float:
        return _sgd_rms(group["momentum"], group["nesterov"])
