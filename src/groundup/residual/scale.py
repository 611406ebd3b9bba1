"""The multiplication itself: a forward hook without a closure on the last module of a branch.

α is a plain attribute of that module: a 0-dim float32 tensor that is filled in place. It is no
buffer, because a buffer is cast by ``.to(torch.bfloat16)``, wiped by ``to_empty`` and broadcast by
DDP; it is no Python float, because a changing float recompiles. The hook is one function for every
branch, so that one compiled block serves every layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

ATTRIBUTE = "residual_alpha"


def scale(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    """α times the output of the branch, in the output's dtype."""
    alpha = module.residual_alpha
    assert isinstance(alpha, torch.Tensor)
    # The model was moved since α was last written: right at once, re-bound at the next write.
    if alpha.device != output.device:
        alpha = alpha.to(output.device)
    return output * alpha


def is_scaled(module: nn.Module) -> bool:
    return ATTRIBUTE in module.__dict__


def install(module: nn.Module, alpha: torch.Tensor) -> RemovableHandle:
    """Scale the outputs of `module` by `alpha` until the handle is removed."""
    bind(module, alpha)
    return module.register_forward_hook(scale)


def bind(module: nn.Module, alpha: torch.Tensor) -> None:
    setattr(module, ATTRIBUTE, alpha)


def remove_scaling(model: nn.Module) -> int:
    """Take every scaling off `model`, also off a deepcopy whose `Warmup` is elsewhere.

    Returns the number of branches that were scaled. Their α counts as 1 from here on.
    """
    scaled = [module for module in model.modules() if is_scaled(module)]
    for module in scaled:
        delattr(module, ATTRIBUTE)
        for key in [k for k, hook in module._forward_hooks.items() if hook is scale]:
            del module._forward_hooks[key]
    return len(scaled)
