"""Whether what a checkpoint would hold is worth keeping: one with NaN would take the place of one
from which the run could go on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from groundup.train.world import World

__all__ = ["first_broken"]


def first_broken(model: nn.Module, optimizer: torch.optim.Optimizer, world: World) -> str | None:
    """The first weight that holds an infinite number or NaN, or whose entries in the optimizer's
    state hold NaN (an optimizer may begin with infinity there), by name; None if there is none.

    The same in all processes, which all call this; each looks at its own part of a sharded tensor.
    """
    # An optimizer may keep small numbers, such as its step, elsewhere.
    device = next(model.parameters()).device
    names, broken = [], []
    for name, flag in _flags(model, optimizer):
        names.append(name)
        broken.append(flag.to(device))
    found = torch.stack(broken).tolist()
    mine = next((name for name, flag in zip(names, found, strict=True) if flag), None)
    return next((name for name in world.gather(mine) if name is not None), None)


def _flags(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """0-dimensional bools."""
    for name, parameter in model.named_parameters():
        yield name, ~_local(parameter.detach()).isfinite().all()
        for key, entry in optimizer.state.get(parameter, {}).items():
            if isinstance(entry, Tensor) and entry.is_floating_point():
                yield f"{name} ({key})", _local(entry).isnan().any()


def _local(tensor: Tensor) -> Tensor:
    """This process's part of a distributed tensor."""
    part = getattr(tensor, "to_local", None)
    return tensor if part is None else part()
