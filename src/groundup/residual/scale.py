"""The multiplication itself: the last module of a branch becomes one whose output is times α.

α is a plain attribute of that module: a 0-dim float32 tensor that is filled in place. It is no
buffer, because a buffer is cast by ``.to(torch.bfloat16)``, wiped by ``to_empty`` and broadcast by
DDP; it is no Python float, because a changing float recompiles.

The module's class is exchanged for a subclass of itself, one for every class, rather than given a
forward hook: `torch.compile` does not guard on hooks, and would go on using a graph that it made of
an unscaled model of the same architecture. It does guard on classes. Parameter names, `isinstance`
and what the module prints stay the same.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import nn

_ALPHA = "residual_alpha"
_TRACED = "residual_traced"


class Traced:
    """Whether `torch.compile` has traced a branch of a model; shared by all its branches."""

    seen = False


class _Scaled:
    """What the subclasses have in common; their `base` is the class that a module came with."""

    base: type[nn.Module]

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class was made here, so that pickle does not find it by its name.
        return _restore, (self.base,), self.__dict__


def install(module: nn.Module, alpha: torch.Tensor, traced: Traced) -> None:
    """Scale the outputs of `module` by `alpha`."""
    bind(module, alpha)
    setattr(module, _TRACED, traced)
    module.__class__ = _scaled(type(module))


def bind(module: nn.Module, alpha: torch.Tensor) -> None:
    """Let another tensor scale `module`."""
    setattr(module, _ALPHA, alpha)


def alpha_of(module: nn.Module) -> torch.Tensor | None:
    """The α that scales this module's output, if one does."""
    return module.__dict__.get(_ALPHA)


def stock_class(module: nn.Module) -> type[nn.Module]:
    """The class of `module` without the scaling."""
    return module.base if isinstance(module, _Scaled) else type(module)


def remove(module: nn.Module) -> bool:
    """Take the scaling off `module`; whether there was one."""
    if not isinstance(module, _Scaled):
        return False
    module.__class__ = module.base  # type: ignore[assignment]
    module.__dict__.pop(_ALPHA, None)
    module.__dict__.pop(_TRACED, None)
    return True


def remove_scaling(model: nn.Module) -> int:
    """Take every scaling off a deepcopy of an attached model, whose `Warmup` is elsewhere.

    Returns the number of branches that were scaled. Their α counts as 1 from here on.
    """
    return sum(remove(module) for module in list(model.modules()))


def _times_alpha(module: nn.Module, output: torch.Tensor) -> torch.Tensor:
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


_SUBCLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _scaled(base: type[nn.Module]) -> type[nn.Module]:
    """The subclass of `base` whose outputs are scaled; always the same one, for torch.compile."""
    if base not in _SUBCLASSES:
        _SUBCLASSES[base] = _make_scaled(base)
    return _SUBCLASSES[base]


def _make_scaled(base: type[nn.Module]) -> type[nn.Module]:
    def call(self: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        return _times_alpha(self, base.__call__(self, *args, **kwargs))

    names: dict[str, Any] = {"base": base, "__call__": call, "__module__": base.__module__}
    return types.new_class(base.__name__, (_Scaled, base), exec_body=lambda ns: ns.update(names))


def _restore(base: type[nn.Module]) -> nn.Module:
    kind = _scaled(base)
    return kind.__new__(kind)
