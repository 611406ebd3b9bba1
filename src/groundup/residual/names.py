"""Module names as the model's author wrote them, whatever wrappers put in."""

from __future__ import annotations

import re

from torch import nn
from torch.optim.swa_utils import AveragedModel

# torch.compile, activation checkpointing, FSDP1.
_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
_WRAPPING = re.compile(rf"(?:^|\.)(?:{'|'.join(_WRAPPERS)})(?=\.|$)")


def stock_name(name: str) -> str:
    """A module's or parameter's name without what wrappers put in."""
    return _WRAPPING.sub("", name).removeprefix(".")


def inside_wrappers(module: nn.Module | None) -> nn.Module | None:
    """What a wrapper of those kinds holds; any other module as it is."""
    while module is not None:
        held = [module._modules[name] for name in _WRAPPERS if name in module._modules]
        if not held:
            break
        module = held[0]
    return module


def unwrap(model: nn.Module) -> nn.Module:
    """The model that a wrapper which only replicates or averages it holds as `module`."""
    while isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel | AveragedModel):
        model = model.module
    return model
