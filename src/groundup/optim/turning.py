"""What the rotational optimizers share: parameters in, a direction for each, and the turn.

A base optimizer gives each parameter a direction (Adam's, momentum's). Rotational parameters are
turned against it row by row; from others it is subtracted.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor

from groundup._check import is_number, unknown, within
from groundup.optim.bias import weights_sum
from groundup.optim.lion import LOW_PRECISION, Number, named, number, precise
from groundup.optim.rotation import tangent, turn_rows
from groundup.optim.rows import local, placed_like, row_norms, turns, whole_rows

ANGLES = ("sqrt", "linear")

_DECAY = 0.9  # of the average of squared lengths, as in the paper
_RIGHT = math.pi / 2  # from where a row would come back
_FLAGS: dict[str, tuple[bool | None, ...]] = {
    "rotational": (None, True, False),
    "foreach": (None, True, False),
    "maximize": (True, False),
    "master_weights": (True, False),
}


class TurningOptimizer(torch.optim.Optimizer):
    """Base of the rotational optimizers; a subclass gives directions and its equilibrium."""

    # State of each weight, of its shape and zero at first.
    _buffer_names: ClassVar[tuple[str, ...]]

    # ------------------------------------------------------------------ what a subclass gives

    def _check_group(self, group: dict[str, Any]) -> None:
        """ValueError for its own settings."""
        raise NotImplementedError

    def _share(self, group: dict[str, Any]) -> float:
        """Square of the angle of the equilibrium, over 2·lr·weight_decay."""
        raise NotImplementedError

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

    # ------------------------------------------------------------------ groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch. ValueError for a setting that is not valid."""
        super().add_param_group(param_group)
        try:
            self._check(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def _check(self, group: dict[str, Any]) -> None:
        for field in ("lr", "weight_decay"):
            _check_scalar(field, group[field])
        if group["angle"] not in ANGLES:
            raise unknown("angle", group["angle"], ANGLES)
        for field, valid in _FLAGS.items():
            if group[field] not in valid:
                raise unknown(field, group[field], map(str, valid))
        self._check_group(group)
        for name, p in named(group):
            if not p.is_floating_point():
                raise ValueError(f"{name} is {p.dtype}: only real floating-point ones are valid")
        if turning := [p for p in group["params"] if turns(p, group["rotational"])]:
            self._check_turning(group, {p.dtype for p in turning})

    def _check_turning(self, group: dict[str, Any], dtypes: set[torch.dtype]) -> None:
        lr, decay = float(group["lr"]), float(group["weight_decay"])
        if decay == 0.0:
            raise ValueError(
                "weight_decay=0 is not valid for parameters that turn: their angle is "
                "∝ √(2·lr·weight_decay), and they would not move. Give a value above 0, or put "
                "them into a group with rotational=False"
            )
        if group["angle"] == "linear" and group.setdefault("peak_lr", lr) == 0.0:
            raise ValueError(
                "lr=0 is not valid with angle='linear': the rate at construction is the peak"
            )
        if (angle := float(self._angle(group))) > _RIGHT:
            raise ValueError(
                f"lr={lr!r} with weight_decay={decay!r} is not valid: each update would turn rows "
                f"by {angle:.3g} rad, more than π/2"
            )
        low = [str(dtype) for dtype in LOW_PRECISION if dtype in dtypes]
        if low and not group["master_weights"]:
            warnings.warn(
                f"{low[0]} weights cannot hold small turns nor a constant norm: keep them in "
                "float32, or pass master_weights=True",
                stacklevel=4,
            )

    # ------------------------------------------------------------------ the update

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update. `closure`, if given, reevaluates the model and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params: list[Tensor] = []
            # torch.compile knows this name, and runs it instead of tracing it.
            self._init_group(group, params)
            for batch, turning in _batches(group, params):
                self._update(group, batch, turning)
        return loss

    def _init_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for name, p in named(group):
            if p.grad is None:
                continue
            if p.grad.is_sparse:
                raise ValueError(f"the gradient of {name} is sparse: only dense ones are valid")
            params.append(p)
            if "step" not in self.state[p]:
                self.state[p].update(self._new_state(group, name, p, p.grad))

    def _new_state(
        self, group: dict[str, Any], name: str, p: Tensor, grad: Tensor
    ) -> dict[str, Tensor]:
        state = {"step": torch.zeros((), dtype=torch.float32)}
        for buffer in self._buffer_names:
            state[buffer] = torch.zeros_like(p, dtype=precise(p.dtype))
        if group["master_weights"] and p.dtype in LOW_PRECISION:
            state["master"] = p.detach().to(precise(p.dtype))
        if turns(p, group["rotational"]):
            norm = row_norms(state.get("master", p.detach()))
            # To load into, distributed checkpoints make a state by an update of rate and gradients
            # 0, and the weights may not be there yet.
            if float(group["lr"]) != 0.0 or bool(local(grad).any()):
                _refuse_zero_rows(name, local(norm))
            state["row_norm"] = norm
            state["row_square"] = torch.zeros_like(norm)
            state["row_step"] = torch.zeros_like(norm)
        return state

    def _update(self, group: dict[str, Any], params: list[Tensor], turning: bool) -> None:
        mine = whole_rows if turning else local
        states = [self.state[p] for p in params]
        held = [mine(p) for p in params]
        weights = [
            mine(state["master"]) if "master" in state else w.to(precise(w.dtype))
            for state, w in zip(states, held, strict=True)
        ]
        grads = [
            mine(placed_like(p.grad, p)).to(w.dtype)  # type: ignore[arg-type]
            for p, w in zip(params, weights, strict=True)
        ]
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        for state in states:
            state["step"] += 1.0
        counts = [number(state["step"]) for state in states]
        buffers = [tuple(mine(state[name]) for name in self._buffer_names) for state in states]
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
        along, length = tangent(weight, direction)
        norm, square, rows = (
            _beside(weight, state[name]) for name in ("row_norm", "row_square", "row_step")
        )
        moves = (length != 0.0).to(length.dtype)
        rows.add_(moves)
        count = rows.clamp_min(1.0)  # that of a row that has never moved is not used
        size = length * self._unbiased(group, n, count)
        square.add_((size.square() - square) * moves, alpha=1.0 - _DECAY)
        usual = (square / weights_sum(_DECAY, count)).sqrt()
        angle = self._angle(group) * _scale_of(state) * self._turn_scale(group, count)
        angle = (angle * size / usual.masked_fill(moves == 0.0, 1.0)).clamp(max=_RIGHT)
        weight.copy_(turn_rows(weight, along, length, -angle, norm))

    def _angle(self, group: dict[str, Any]) -> Number:
        lr, decay, share = number(group["lr"]), number(group["weight_decay"]), self._share(group)
        if group["angle"] == "linear":
            peak = group["peak_lr"]
            return (2.0 * peak * decay * share) ** 0.5 * (lr / peak)
        return (2.0 * lr * decay * share) ** 0.5

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

    # ------------------------------------------------------------------ checkpoints

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but every tensor keeps its dtype: torch casts to the parameter's."""
        taken: dict[str, Any] = {}
        # Registered last, it sees what the others made of the state.
        hook = self.register_load_state_dict_pre_hook(lambda _, state: taken.update(state))
        try:
            super().load_state_dict(state_dict)
        finally:
            hook.remove()
        ids = chain.from_iterable(group["params"] for group in taken["param_groups"])
        params = chain.from_iterable(group["params"] for group in self.param_groups)
        for saved, p in zip(ids, params, strict=True):
            for key, value in taken["state"].get(saved, {}).items():
                if isinstance(value, Tensor) and self.state[p][key].dtype != value.dtype:
                    self.state[p][key] = value.to(self.state[p][key].device)


# ---------------------------------------------------------------------- small things


def times_(tensors: list[Tensor], factors: Sequence[Number]) -> None:
    """Multiply each tensor by its factor, in place."""
    floats = [factor for factor in factors if not isinstance(factor, Tensor)]
    if len(floats) == len(tensors):
        torch._foreach_mul_(tensors, floats)
    else:
        for tensor, factor in zip(tensors, factors, strict=True):
            tensor.mul_(factor)


def _scale_of(state: dict[str, Tensor]) -> Number:
    return number(state["update_scale"]) if "update_scale" in state else 1.0


def _batches(group: dict[str, Any], params: list[Tensor]) -> Iterator[tuple[list[Tensor], bool]]:
    """Parameters to be updated together, and whether they turn."""
    turning = [turns(p, group["rotational"]) for p in params]
    foreach = group["foreach"]
    if foreach is None:
        foreach = all(p.is_cuda for p in params) and not torch.compiler.is_compiling()
    if not foreach:
        yield from (([p], turns_) for p, turns_ in zip(params, turning, strict=True))
        return
    alike: dict[Any, list[Tensor]] = {}
    for p, turns_ in zip(params, turning, strict=True):
        whole = whole_rows(p) is local(p)
        alike.setdefault((turns_, whole, p.device, p.dtype), []).append(p)
    yield from ((batch, turns_) for (turns_, *_), batch in alike.items())


def _beside(weight: Tensor, rows: Tensor) -> Tensor:
    """State of rows as the weight is: on this rank, or distributed (where rows are cut apart)."""
    return rows if hasattr(weight, "placements") else local(rows)


def _refuse_zero_rows(name: str, norm: Tensor) -> None:
    stuck = (norm.flatten() <= 0.0).nonzero().flatten().tolist()
    if stuck:
        raise ValueError(
            f"{name} has {len(stuck)} rows of norm 0, the first of them {stuck[0]}: rows turn at "
            "constant norm, so that these could never change. Initialize them otherwise, or put "
            "the parameter into a group with rotational=False"
        )


def _check_scalar(field: str, value: Any) -> None:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(
                f"{field} of shape {tuple(value.shape)} is not valid: a tensor must hold one number"
            )
    elif not is_number(value):
        raise ValueError(f"{field}={value!r} is not valid: it must be a number or a 0-dim tensor")
    else:
        within(field, value, 0.0, math.inf)
