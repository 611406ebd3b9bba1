"""Optimizers whose step calls a closure that makes the gradients (LBFGS, Lightning)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch


def after_closure(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], then: Callable[[], None]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Call back when an optimizer's step has its gradients: at once, or after its closure was
    called for the first time.

    Args:
        args, kwargs: what ``optimizer.step`` is called with, the optimizer itself first.

    Returns:
        What to call it with instead, or None: as it is.
    """
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if closure is None:
        then()
        return None
    before = _First(closure, then)
    if "closure" in kwargs:
        return args, {**kwargs, "closure": before}
    return (args[0], before, *args[2:]), dict(kwargs)


class _First:
    """A closure that calls back after its first call."""

    def __init__(self, closure: Callable[[], Any], then: Callable[[], None]) -> None:
        self._closure, self._then, self._called = closure, then, False

    def __call__(self) -> Any:
        with torch.enable_grad():
            result = self._closure()
        if not self._called:
            self._called = True
            self._then()
        return result
