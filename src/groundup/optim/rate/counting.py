"""Noticing that a schedule is advanced too seldom or too often."""

from __future__ import annotations

import torch
from torch import Tensor

_SLACK = 20  # updates, for what a gradient scaler skips and for loops that log before they step


class Counting:
    """Compares the calls of `schedule.step()` with the updates that the optimizer has counted.

    Only for optimizers that keep a "step"; the others are never judged.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        self._optimizer = optimizer
        self.restart(step)

    def restart(self, step: int) -> None:
        """Count from here on."""
        self._from = (updates(self._optimizer), step)

    def complaint(self, step: int) -> str | None:
        """What is wrong, in words, if something is."""
        made = updates(self._optimizer) - self._from[0]
        calls = step - self._from[1]
        if calls == 0 and made >= 2:
            return f"schedule.step() was not called in {made} updates: the rate has not changed"
        if made > 2 * calls + _SLACK:
            return (
                f"schedule.step() was called {calls} times in {made} updates, and lengths count "
                "calls: is it called once an epoch? (Lightning: interval='step')"
            )
        if made and calls > 1.5 * made + _SLACK:
            return (
                f"schedule.step() was called {calls} times in {made} updates: is it called for "
                "every micro-batch, or on several processes for one?"
            )
        return None


def updates(optimizer: torch.optim.Optimizer) -> int:
    """The updates that the optimizer's state has counted; 0 where that is not known."""
    found = [group.get("step", 0) for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        found += [optimizer.state.get(p, {}).get("step", 0) for p in group["params"][:1]]
    # A count on a GPU would have to be waited for.
    at_hand = [s for s in found if not isinstance(s, Tensor) or s.device.type == "cpu"]
    return max((int(s) for s in at_hand), default=0)
