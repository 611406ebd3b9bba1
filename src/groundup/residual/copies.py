"""Copies of a model with residual warmup, on their own."""

from __future__ import annotations

from torch import nn

from groundup.residual import scale
from groundup.residual.resting import wake


def remove_scaling(model: nn.Module) -> int:
    """Take every scaling off a deepcopy of an attached model, whose `Warmup` is elsewhere.

    Such a copy shares the α of the original; without it, it can be attached to on its own.
    Returns the number of branches that were scaled. Their α counts as 1 from here on.
    """
    for module in model.modules():
        scale.release(module)
        wake(module)
    return sum(scale.remove(module) for module in list(model.modules()))
