"""Multiplying α into the weights, so that a model without any hook computes the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from groundup.residual.branches import Branch, stock_name
from groundup.residual.scale import stock_class

# Modules whose output is linear in weight and bias together: α·f(x; W, b) = f(x; αW, αb).
_LINEAR_IN_THEIR_PARAMETERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
)


def fold_into(model: nn.Module, branches: Sequence[Branch], alphas: Sequence[float]) -> None:
    """Multiply the parameters of each branch's last module by its α, in place."""
    with torch.no_grad():
        for parameter, alpha in list(_parameters(model, branches, alphas)):
            parameter.mul_(alpha)


def folded(model: nn.Module, branches: Sequence[Branch], alphas: Sequence[float]) -> dict[str, Any]:
    """A state dict under stock names with α, and the model's own fixed scales, multiplied in.

    A model states its fixed scales (LayerNorm Scaling's 1/√l) in `stock_multipliers()`: parameter
    name → multiplier. Entries that nothing is multiplied into share memory with the model.
    """
    factors = {id(parameter): alpha for parameter, alpha in _parameters(model, branches, alphas)}
    by_name = {
        stock_name(f"{prefix}.{name}" if prefix else name): factor
        for prefix, module in model.named_modules()
        for name, factor in getattr(module, "stock_multipliers", dict)().items()
    }
    live = dict(model.named_parameters(remove_duplicate=False))
    state: dict[str, Any] = {}
    for name, value in model.state_dict().items():
        factor = factors.get(id(live.get(name)), 1.0) * by_name.get(stock_name(name), 1.0)
        state[stock_name(name)] = value if factor == 1.0 else value * factor
    return state


def _parameters(
    model: nn.Module, branches: Sequence[Branch], alphas: Sequence[float]
) -> Iterator[tuple[nn.Parameter, float]]:
    """Each parameter that α is multiplied into; ValueError where that would be wrong."""
    users = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    for branch, alpha in zip(branches, alphas, strict=True):
        if not _is_foldable(branch.module):
            raise ValueError(
                f"cannot fold α into {branch.name}: a {type(branch.module).__name__} with "
                f"{', '.join(_names(branch.module)) or 'no parameters'} is not known to be linear "
                "in them"
            )
        for name, parameter in branch.module.named_parameters():
            if users[id(parameter)] > 1:
                raise ValueError(
                    f"cannot fold α into {branch.name}: another module shares its {name}"
                )
            yield parameter, alpha


def _is_foldable(module: nn.Module) -> bool:
    """A plain module of a known kind: no forward of its own, no parametrization, no children."""
    known = {kind.forward for kind in _LINEAR_IN_THEIR_PARAMETERS}
    own = "forward" in module.__dict__ or stock_class(module).forward not in known
    names = set(_names(module))
    return not own and not list(module.children()) and {"weight"} <= names <= {"weight", "bias"}


def _names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]
