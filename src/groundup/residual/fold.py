"""Multiplying α into the weights, so that a model without any hook computes the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from groundup.residual.branches import Branch, stock_name

# Modules whose output is linear in their parameters taken together: α·f(x; W, b) = f(x; αW, αb).
_FOLDABLE: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
)


def fold_into(branches: Sequence[Branch], alphas: Sequence[float]) -> None:
    """Multiply the parameters of each branch's last module by its α, in place."""
    with torch.no_grad():
        for parameter, alpha in _parameters(branches, alphas):
            parameter.mul_(alpha)


def folded(model: nn.Module, branches: Sequence[Branch], alphas: Sequence[float]) -> dict[str, Any]:
    """A state dict under stock names with α, and the model's own fixed scales, multiplied in.

    A model states its fixed scales (LayerNorm Scaling's 1/√l) in `stock_multipliers()`: parameter
    name → multiplier. Entries that nothing is multiplied into share memory with the model.
    """
    factors = {id(parameter): alpha for parameter, alpha in _parameters(branches, alphas)}
    by_name = dict(getattr(model, "stock_multipliers", dict)())
    live = dict(model.named_parameters(remove_duplicate=False))
    state: dict[str, Any] = {}
    for name, value in model.state_dict().items():
        factor = factors.get(id(live.get(name)), 1.0) * by_name.get(stock_name(name), 1.0)
        state[stock_name(name)] = value if factor == 1.0 else value * factor
    return state


def _parameters(
    branches: Sequence[Branch], alphas: Sequence[float]
) -> Iterator[tuple[nn.Parameter, float]]:
    seen: dict[int, str] = {}
    for branch, alpha in zip(branches, alphas, strict=True):
        parameters = list(branch.module.parameters(recurse=False))
        if not isinstance(branch.module, _FOLDABLE) or not parameters:
            raise ValueError(
                f"cannot fold α into {branch.name}: a {type(branch.module).__name__} is not known "
                "to be linear in its parameters"
            )
        for parameter in parameters:
            if id(parameter) in seen:
                raise ValueError(
                    f"cannot fold α: {branch.name} shares a parameter with {seen[id(parameter)]}"
                )
            seen[id(parameter)] = branch.name
            yield parameter, alpha
