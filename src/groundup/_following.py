"""Counting an optimizer's updates, with the count kept in the optimizer itself.

The count stands in each of its `param_groups`, so that whoever saves and loads the optimizer's
state dict saves and loads the count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Optimizer = torch.optim.Optimizer


def innermost(optimizer: Any, otherwise: str) -> Optimizer:
    """The torch optimizer inside what a trainer wraps around it (Accelerate, Lightning).

    Args:
        otherwise: how the error ends: what one does with any other optimizer.

    Raises:
        ValueError: if there is none.
    """
    found = optimizer
    while (inner := getattr(found, "optimizer", None)) is not None:
        found = inner
    if not isinstance(found, Optimizer):
        raise ValueError(
            f"optimizer of type {type(optimizer).__name__} is not valid: this needs a "
            f"torch.optim.Optimizer. {otherwise}"
        )
    return found


def skipping(optimizer: Optimizer) -> bool:
    """Whether the step that is being made leaves all as it is: fused kernels read that from
    ``optimizer.found_inf``. Waits for the GPU."""
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(found_inf.item())


class Following:
    """Calls back after every update that moved weights, and when a count was loaded.

    Args:
        optimizer: followed until `stop`.
        key: where the number of completed updates stands in each parameter group.
        updated: called after each update.
        loaded: called with the count after the optimizer's state was loaded, or with None where
            that carries none.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        key: str,
        updated: Callable[[], None],
        loaded: Callable[[int | None], None],
    ) -> None:
        self._optimizer = optimizer
        self._key = key
        self._updated = updated
        self._first_update = False
        old = has_updated(optimizer) or any(key in group for group in optimizer.param_groups)
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
        steps = {g[self._key] for g in self._optimizer.param_groups if self._key in g}
        if len(steps) > 1:
            raise ValueError(f"the optimizer's groups carry different {self._key}: {sorted(steps)}")
        return steps.pop() if steps else None

    def write(self, step: int) -> None:
        for group in self._optimizer.param_groups:
            group[self._key] = step

    def stop(self) -> None:
        for hook in self._hooks:
            hook.remove()
        for group in self._optimizer.param_groups:
            group.pop(self._key, None)

    def _before(self, optimizer: Optimizer, *_: Any) -> None:
        self._first_update = not optimizer.state

    def _after(self, optimizer: Optimizer, *_: Any) -> None:
        # A fused optimizer is called with an overflow too, and skips the update itself.
        if skipping(optimizer):
            return
        # torch.distributed.checkpoint makes the state of a fresh optimizer by an update with rate
        # and gradients 0.
        if not (self._first_update and _moves_nothing(optimizer)):
            self._updated()


def has_updated(optimizer: Optimizer) -> bool:
    """Whether it has state of earlier updates; Adagrad has one from the start, with a step of 0."""
    return any(bool(state.get("step", 1) != 0) for state in optimizer.state.values())


def _moves_nothing(optimizer: Optimizer) -> bool:
    """Whether every rate and every gradient of an update is 0."""
    if any(group["lr"] != 0 for group in optimizer.param_groups):
        return False
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return not any(p.grad is not None and bool(p.grad.any()) for p in parameters)
