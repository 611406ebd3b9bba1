"""What the rotational optimizers share: from a direction for each parameter to the turn.

A base optimizer gives each parameter a direction (Adam's, momentum's). Rotational parameters are
turned against it row by row; from others it is subtracted.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from groundup.optim.bias import weights_sum
from groundup.optim.own import Number, batches, in_dtype, number, precise, rows_of, times_
from groundup.optim.rotation import tangent, turn_rows
from groundup.optim.rows import local, placed_like, whole_rows
from groundup.optim.turning import RIGHT, TurningOptimizer, turns_in

_DECAY = 0.9  # of the average of squared lengths, as in the paper


class EquilibriumOptimizer(TurningOptimizer):
    """Base of the rotational optimizers; a subclass gives directions and its equilibrium."""

    _columns: ClassVar[tuple[str, ...]] = ()

    # ------------------------------------------------------------------ what a subclass gives

    def _directions(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        grads: list[Tensor],
        buffers: list[tuple[Tensor, ...]],
        counts: list[Any],
        turning: bool,
    ) -> list[Tensor]:
        """New tensors: what weights turn against, or what is subtracted from them at a rate of 1.

        The lists are parallel, an entry for each weight; `buffers` are to be updated, `counts` are
        the numbers n = 1, 2, … of the updates being made.
        """
        raise NotImplementedError

    def _unbiased(self, group: dict[str, Any], n: Any, rows: Tensor) -> Number:
        """What multiplies the length of a direction of update `n` for its bias correction to count
        the updates of the row, `rows` = 1, 2, …, [out, 1, …]."""
        raise NotImplementedError

    def _turn_scale(self, group: dict[str, Any], rows: Tensor) -> Number:
        """What multiplies the angle in the row's update number `rows` = 1, 2, …, [out, 1, …]."""
        return 1.0

    def _decoupled(self, group: dict[str, Any]) -> Number:
        """Weight decay of parameters that do not turn, outside of the direction."""
        return 0.0

    # ------------------------------------------------------------------ the update

    def _init_state(self, group: dict[str, Any], p: Tensor, state: dict[str, Tensor]) -> None:
        super()._init_state(group, p, state)
        if (norm := state.get(self._norm)) is not None:
            state["row_square"] = torch.zeros_like(norm)
            state["row_step"] = torch.zeros_like(norm)

    def _update(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], *columns: list[Any]
    ) -> None:
        def kind(p: Tensor) -> tuple[Any, ...]:
            whole = whole_rows(p, group["out_dim"]) is local(p)
            return turns_in(group, p), whole, p.device, p.dtype

        for batch in batches(group, params, kind):
            self._update_alike(group, *rows_of(batch, params, grads))

    def _update_alike(
        self, group: dict[str, Any], params: list[Tensor], given: list[Tensor]
    ) -> None:
        turning = turns_in(group, params[0])

        def mine(tensor: Tensor) -> Tensor:
            return whole_rows(tensor, group["out_dim"]) if turning else local(tensor)

        states = [self.state[p] for p in params]
        held = [mine(p) for p in params]
        weights = [
            mine(state["master"]) if "master" in state else in_dtype(w, precise(w.dtype))
            for state, w in zip(states, held, strict=True)
        ]
        grads = [
            in_dtype(mine(placed_like(grad, p)), w.dtype)
            for grad, p, w in zip(given, params, weights, strict=True)
        ]
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        for state in states:
            state["step"] += 1.0
        counts = [number(state["step"]) for state in states]
        buffers = [tuple(mine(state[name]) for name in self._buffers) for state in states]
        directions = self._directions(group, weights, grads, buffers, counts, turning)
        if turning:
            for each in zip(weights, directions, states, counts, strict=True):
                self._turn(group, *each)
        else:
            self._subtract(group, weights, directions, states)
        for p, weight in zip(held, weights, strict=True):
            if weight is not p:
                p.copy_(weight)

    def _turn(
        self,
        group: dict[str, Any],
        weight: Tensor,
        direction: Tensor,
        state: dict[str, Tensor],
        n: Any,
    ) -> None:
        along, length = tangent(weight, direction, group["out_dim"])
        norm, square, rows = (
            _beside(weight, state[name]) for name in (self._norm, "row_square", "row_step")
        )
        moves = (length != 0.0).to(length.dtype)
        rows.add_(moves)
        count = rows.clamp_min(1.0)  # that of a row that has never moved is not used
        size = length * self._unbiased(group, n, count)
        square.add_((size.square() - square) * moves, alpha=1.0 - _DECAY)
        usual = (square / weights_sum(_DECAY, count)).sqrt()
        angle = self._angle(group) * _scale_of(state) * self._turn_scale(group, count)
        angle = (angle * size / usual.masked_fill(moves == 0.0, 1.0)).clamp(max=RIGHT)
        weight.copy_(turn_rows(weight, along, length, -angle, norm, group["out_dim"]))

    def _subtract(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        directions: list[Tensor],
        states: list[dict[str, Tensor]],
    ) -> None:
        lr, decay = number(group["lr"]), number(self._decoupled(group))
        times_(weights, [1.0 - lr * decay] * len(weights))
        times_(directions, [lr * _scale_of(state) for state in states])
        torch._foreach_sub_(weights, directions)


def _scale_of(state: dict[str, Tensor]) -> Number:
    return number(state["update_scale"]) if "update_scale" in state else 1.0


def _beside(weight: Tensor, rows: Tensor) -> Tensor:
    """State of rows as the weight is: on this rank, or distributed (where rows are cut apart)."""
    return rows if hasattr(weight, "placements") else local(rows)
