"""What groundup's own optimizers share: settings that are checked, updates, state that is saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor

from groundup._check import is_number, unknown, within
from groundup.residual.scale import capturing

Number = float | Tensor

LOW_PRECISION = (torch.bfloat16, torch.float16)
_FLAGS: dict[str, tuple[bool | None, ...]] = {
    "foreach": (None, True, False),
    "master_weights": (True, False),
    "maximize": (True, False),
    "nesterov": (True, False),
    "rotational": (None, True, False),
}


class OwnOptimizer(torch.optim.Optimizer):
    """Base of LionA, LionAR and the rotational optimizers."""

    # State of each parameter that is of its shape and zero at first; float32 for 16-bit ones.
    _buffers: ClassVar[tuple[str, ...]]
    # State that `_update` is given in lists.
    _columns: ClassVar[tuple[str, ...]] = ()

    # ------------------------------------------------------------------ what a subclass gives

    def _update(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], *columns: list[Any]
    ) -> None:
        """Update the parameters of a group that have gradients.

        The lists are parallel. Each of `columns` holds one of `_columns`, and None where a
        parameter has no such state.
        """
        raise NotImplementedError

    def _init_state(self, group: dict[str, Any], p: Tensor, state: dict[str, Tensor]) -> None:
        """Add what is kept besides the buffers."""

    def _check_state(self, group: dict[str, Any], index: int) -> None:
        """ValueError where a parameter of a group cannot be updated; before anything moves."""

    # ------------------------------------------------------------------ groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch. ValueError for a setting that is not valid; the group is not taken then."""
        super().add_param_group(param_group)
        try:
            self._check(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def _check(self, group: dict[str, Any]) -> None:
        """ValueError for a setting of a group that is not valid."""
        for field in ("lr", "weight_decay"):
            _check_scalar(field, group[field])
        for field in _FLAGS.keys() & self.defaults.keys():
            if group[field] not in _FLAGS[field]:
                raise unknown(field, group[field], map(str, _FLAGS[field]))
        for i, p in enumerate(group["params"]):
            if not p.is_floating_point():
                raise ValueError(
                    f"{name_of(group, i)} is {p.dtype}: only real floating-point ones are valid"
                )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # saved before there was such a setting
            for field, value in self.defaults.items():
                group.setdefault(field, value)

    # ------------------------------------------------------------------ the update

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update. `closure`, if given, reevaluates the model and returns the loss.

        Raises:
            RuntimeError: while a CUDA graph is captured.
        """
        if not torch.compiler.is_compiling() and capturing():
            raise RuntimeError(
                f"{type(self).__name__} counts its updates on the CPU, and each replay of a CUDA "
                "graph would repeat the one that was captured: leave optimizer.step() outside, or "
                "compile it"
            )
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found = []
        for group in self.param_groups:
            lists: list[list[Any]] = [[] for _ in range(2 + len(self._columns))]
            # torch.compile runs what has this name, and traces only what is in the lists then.
            self._init_group(group, *lists)
            found.append(lists)
        # What is refused has been, before anything moves.
        for group, (params, grads, *columns) in zip(self.param_groups, found, strict=True):
            if params:
                self._update(group, params, grads, *columns)
        return loss

    def _init_group(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], *columns: list[Any]
    ) -> None:
        for i, p in enumerate(group["params"]):
            if p.grad is None:
                continue
            if p.grad.is_sparse:
                raise ValueError(
                    f"the gradient of {name_of(group, i)} is sparse: only dense ones are valid"
                )
            state = self.state[p]
            if "step" not in state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                for buffer in self._buffers:
                    state[buffer] = torch.zeros_like(p, dtype=precise(p.dtype))
                self._init_state(group, p, state)
            self._check_state(group, i)
            params.append(p)
            grads.append(p.grad)
            for column, field in zip(columns, self._columns, strict=True):
                column.append(state.get(field))

    # ------------------------------------------------------------------ checkpoints

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but float32 state of bfloat16 and float16 parameters stays float32."""
        taken: dict[str, Any] = {}
        # Registered last, it sees what the others made of the state.
        hook = self.register_load_state_dict_pre_hook(lambda _, state: taken.update(state))
        try:
            super().load_state_dict(state_dict)
        finally:
            hook.remove()
        numbers = chain.from_iterable(group["params"] for group in taken["param_groups"])
        params = chain.from_iterable(group["params"] for group in self.param_groups)
        for number, p in zip(numbers, params, strict=True):
            for field, value in taken["state"].get(number, {}).items():
                if p.dtype in LOW_PRECISION and isinstance(value, Tensor) and field != "step":
                    self.state[p][field] = value.to(p.device)


# ---------------------------------------------------------------------- many tensors at once


def batches(
    group: dict[str, Any],
    params: list[Tensor],
    kind: Callable[[Tensor], Hashable] = lambda p: (p.device, p.dtype),
) -> list[list[int]]:
    """Positions of parameters that one foreach call takes: all of a kind, or each by itself."""
    together = group["foreach"]
    if together is None:
        together = all(p.is_cuda for p in params) and not torch.compiler.is_compiling()
    if not together:
        return [[i] for i in range(len(params))]
    alike: dict[Hashable, list[int]] = {}
    for i, p in enumerate(params):
        alike.setdefault(kind(p), []).append(i)
    return list(alike.values())


def rows_of(batch: list[int], *columns: list[Any]) -> list[list[Any]]:
    """What stands at those positions of each list."""
    return [[column[i] for i in batch] for column in columns]


def times_(tensors: list[Tensor], factors: Sequence[Number]) -> None:
    """Multiply each tensor by its factor, in place."""
    floats = [factor for factor in factors if not isinstance(factor, Tensor)]
    if len(floats) == len(tensors):
        torch._foreach_mul_(tensors, floats)
    else:
        for tensor, factor in zip(tensors, factors, strict=True):
            tensor.mul_(factor)


# ---------------------------------------------------------------------- small things


def name_of(group: dict[str, Any], index: int) -> str:
    """What an error calls a parameter of a group."""
    names, shape = group.get("param_names"), tuple(group["params"][index].shape)
    name = f"parameter {index} of its group" if names is None else names[index]
    return f"{name} (shape {shape})"


def number(value: Number) -> Number:
    """A scalar as a float where nobody waits for it: in eager mode and on the CPU."""
    if isinstance(value, Tensor) and value.is_cpu and not torch.compiler.is_compiling():
        return value.item()
    return value


def in_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)  # a call of to() is not free


def precise(dtype: torch.dtype) -> torch.dtype:
    """What an update is computed in."""
    return torch.promote_types(dtype, torch.float32)


def check_momentum(field: str, value: Any) -> None:
    """ValueError for what is not in [0, 1)."""
    within(field, value, 0.0, 1.0)
    if value == 1.0:
        raise ValueError(f"{field}=1 is not valid: it must be below 1")


def _check_scalar(field: str, value: Any) -> None:
    if isinstance(value, Tensor):
        if value.ndim != 0:
            raise ValueError(
                f"{field} of shape {tuple(value.shape)} is not valid: it must be a number or a "
                "tensor without dimensions"
            )
        value = value.item()
    if not is_number(value):
        raise ValueError(f"{field}={value!r} is not valid: it must be a number or a 0-dim tensor")
    within(field, value, 0.0, math.inf)
