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

_ALPHA = "residual_alpha"
_TRACED = "residual_traced"


class Traced:
    """Whether `torch.compile` has traced a branch of a model; shared by all its branches."""

    seen = False


def scale(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    """α times the output of the branch, in the output's dtype."""
    if not isinstance(output, torch.Tensor):
        raise TypeError(
            f"a residual branch must end in a module that returns a tensor; this "
            f"{type(module).__name__} returns a {type(output).__name__}: name a module inside it "
            "in branches=[…]"
        )
    alpha = module.residual_alpha
    assert isinstance(alpha, torch.Tensor)
    if torch.compiler.is_compiling():
        module.residual_traced.seen = True  # type: ignore[union-attr]
    # The model was moved since α was last written: right at once, re-bound at the next write.
    if alpha.device != output.device:
        alpha = alpha.to(output.device)
    return output * alpha


def alpha_of(module: nn.Module) -> torch.Tensor | None:
    """The α that scales this module's output, if one does."""
    return module.__dict__.get(_ALPHA)


def install(module: nn.Module, alpha: torch.Tensor, traced: Traced) -> RemovableHandle:
    """Scale the outputs of `module` by `alpha`."""
    bind(module, alpha)
    setattr(module, _TRACED, traced)
    return module.register_forward_hook(scale)


def bind(module: nn.Module, alpha: torch.Tensor) -> None:
    """Let another tensor scale `module`."""
    setattr(module, _ALPHA, alpha)


def remove(module: nn.Module) -> bool:
    """Take the scaling off `module`; whether there was one."""
    scaled = alpha_of(module) is not None
    for key in [key for key, hook in module._forward_hooks.items() if hook is scale]:
        del module._forward_hooks[key]
    module.__dict__.pop(_ALPHA, None)
    module.__dict__.pop(_TRACED, None)
    return scaled


def remove_scaling(model: nn.Module) -> int:
    """Take every scaling off a deepcopy of an attached model, whose `Warmup` is elsewhere.

    Returns the number of branches that were scaled. Their α counts as 1 from here on.
    """
    return sum(remove(module) for module in list(model.modules()))
