"""Counting an optimizer's updates, with the count kept in the optimizer itself.

The count stands in each of its `param_groups`, so that whoever saves and loads the optimizer's
state dict saves and loads the count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Optimizer = torch.optim.Optimizer

GROUP_KEY = "residual_warmup_step"
"""Where the number of completed updates stands in each parameter group."""


def innermost(optimizer: Any) -> Optimizer:
    """The torch optimizer inside what a trainer wraps around it (Accelerate, Lightning).

    Raises:
        ValueError: if there is none.
    """
    found = optimizer
    while (inner := getattr(found, "optimizer", None)) is not None:
        found = inner
    if not isinstance(found, Optimizer):
        raise ValueError(
            f"optimizer of type {type(optimizer).__name__} is not valid: follow() needs a "
            "torch.optim.Optimizer. With any other, say warmup.step() after each update, or "
            "warmup.at(updates)"
        )
    return found


class Following:
    """Calls back after every update that moved weights, and when a count was loaded.

    Args:
        optimizer: followed until `stop`.
        updated: called after each update.
        loaded: called with the count after the optimizer's state was loaded, or with None where
            that carries none.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        updated: Callable[[], None],
        loaded: Callable[[int | None], None],
    ) -> None:
        self._optimizer = optimizer
        self._updated = updated
        self._first_update = False
        old = _has_updated(optimizer) or any(GROUP_KEY in group for group in optimizer.param_groups)
        step = self.read() if old else None
        # Of a compiled optimizer.step() nothing of this is to be compiled (and compiled anew).
        # Making an optimizer has imported torch._dynamo, so that this costs nothing.
        before, after = (torch.compiler.disable(hook) for hook in (self._before, self._after))
        self._hooks = [
            optimizer.register_step_pre_hook(before),
            optimizer.register_step_post_hook(after),
            optimizer.register_load_state_dict_post_hook(lambda _: loaded(self.read())),
        ]
        if old:
            loaded(step)

    def read(self) -> int | None:
        """The count in the parameter groups; None where it is in none of them."""
        steps = {g[GROUP_KEY] for g in self._optimizer.param_groups if GROUP_KEY in g}
        if len(steps) > 1:
            raise ValueError(f"the optimizer's groups carry different {GROUP_KEY}: {sorted(steps)}")
        return steps.pop() if steps else None

    def write(self, step: int) -> None:
        for group in self._optimizer.param_groups:
            group[GROUP_KEY] = step

    def stop(self) -> None:
        for hook in self._hooks:
            hook.remove()
        for group in self._optimizer.param_groups:
            group.pop(GROUP_KEY, None)

    def _before(self, optimizer: Optimizer, *_: Any) -> None:
        self._first_update = not optimizer.state

    def _after(self, optimizer: Optimizer, *_: Any) -> None:
        # A fused optimizer is called with an overflow too, and skips the update itself.
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None and found_inf.item():
            return
        # torch.distributed.checkpoint makes the state of a fresh optimizer by an update with rate
        # and gradients 0.
        if not (self._first_update and _moves_nothing(optimizer)):
            self._updated()


def _has_updated(optimizer: Optimizer) -> bool:
    """Whether it has state of earlier updates; Adagrad has one from the start, with a step of 0."""
    return any(bool(state.get("step", 1) != 0) for state in optimizer.state.values())


def _moves_nothing(optimizer: Optimizer) -> bool:
    """Whether every rate and every gradient of an update is 0."""
    if any(group["lr"] != 0 for group in optimizer.param_groups):
        return False
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return not any(p.grad is not None and bool(p.grad.any()) for p in parameters)
