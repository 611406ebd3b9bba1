"""Multiplying α into the weights, so that a model without any scaling computes the same."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from groundup.residual.branches import Branch
from groundup.residual.names import stock_name
from groundup.residual.scale import stock_class

Rule = Callable[[Tensor, float], Tensor]
"""(parameter, α) → what makes the module's output α times as large."""


def _times(parameter: Tensor, alpha: float) -> Tensor:
    return parameter * alpha


def _times_from_one(parameter: Tensor, alpha: float) -> Tensor:
    """For norms that multiply by 1 + w (Gemma): α·(1 + w) − 1."""
    folded = (alpha * (1.0 + parameter.double()) - 1.0).to(parameter.dtype)
    # Near −1 the weight has lost the digits that 1 + w is made of.
    if alpha != 0.0 and alpha < 64 * torch.finfo(parameter.dtype).eps:
        warnings.warn(
            f"a norm weight w that counts as 1 + w is folded with α = {alpha:.3g} in "
            f"{parameter.dtype}, which keeps less than 6 binary digits of it: fold in float32",
            stacklevel=2,
        )
    return folded


# Modules whose output is linear in weight and bias together: α·f(x; W, b) = f(x; αW, αb).
_LINEAR_IN_THEIR_PARAMETERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.BatchNorm2d,
)


@dataclass(frozen=True)
class _Fold:
    """A parameter, what it is multiplied by and how."""

    parameter: nn.Parameter
    alpha: float
    rule: Rule

    def __call__(self, value: Tensor) -> Tensor:
        return self.rule(value, self.alpha)


def fold_into(model: nn.Module, branches: Sequence[Branch], alphas: Sequence[float]) -> None:
    """Fold α into the parameters of each branch's end, in place."""
    with torch.no_grad():
        for fold in list(_folds(model, branches, alphas)):
            fold.parameter.copy_(fold(fold.parameter))


def folded(model: nn.Module, branches: Sequence[Branch], alphas: Sequence[float]) -> dict[str, Any]:
    """A state dict under stock names with α, and the model's own fixed scales, multiplied in.

    A model states its own scales (LayerNorm Scaling's 1/√l, gains) in `stock_multipliers()`:
    parameter name → multiplier, a number or a tensor, or None for what a stock model does not have,
    which is left out. Entries that nothing is multiplied into share memory with the model.
    """
    folds = {id(fold.parameter): fold for fold in _folds(model, branches, alphas)}
    by_name = {
        stock_name(f"{prefix}.{name}" if prefix else name): factor
        for prefix, module in model.named_modules()
        for name, factor in getattr(module, "stock_multipliers", dict)().items()
    }
    # Wrappers take their prefix out of a state dict's names, but not out of all parameters' names.
    live = {
        stock_name(name): parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    state: dict[str, Any] = {}
    for name, value in model.state_dict().items():
        if fold := folds.get(id(live.get(stock_name(name)))):
            value = fold(value)
        factor = by_name.get(stock_name(name), 1.0)
        if factor is not None:
            whole = isinstance(factor, float) and factor == 1.0
            state[stock_name(name)] = value if whole else value * factor
    return state


def _folds(
    model: nn.Module, branches: Sequence[Branch], alphas: Sequence[float]
) -> Iterator[_Fold]:
    """What α is multiplied into; ValueError where that would be wrong."""
    users = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    for branch, alpha in zip(branches, alphas, strict=True):
        if alpha == 1.0:
            continue  # also where nothing could be folded
        for name, parameter, rule in _parameters(branch):
            if users[id(parameter)] > 1:
                raise ValueError(
                    f"cannot fold α into {branch.name}: another module shares its {name}"
                )
            yield _Fold(parameter, alpha, rule)


def _parameters(branch: Branch) -> Iterator[tuple[str, nn.Parameter, Rule]]:
    targets = [
        target
        for path in branch.end.fold
        if (target := _inside(branch.block, path.split("."))) is not None
    ]
    end = branch.module
    for target in targets or [end.out_proj if isinstance(end, nn.MultiheadAttention) else end]:
        if isinstance(target, nn.Parameter):
            yield "parameter", target, _times  # the table says that the branch is linear in it
            continue
        rule = _rule_of(target)
        if rule is None:
            raise ValueError(
                f"cannot fold α into {branch.name}: a {type(target).__name__} with "
                f"{', '.join(_names(target)) or 'no parameters'} is not known to be linear in them"
            )
        yield from ((name, parameter, rule) for name, parameter in target.named_parameters())


def _inside(module: nn.Module, path: Sequence[str]) -> nn.Module | nn.Parameter | None:
    for name in path[:-1]:
        module = module._modules.get(name)  # type: ignore[assignment]
        if module is None:
            return None
    return module._modules.get(path[-1], module._parameters.get(path[-1]))


def _rule_of(module: nn.Module) -> Rule | None:
    """How α is folded into a module without children; None if no way is known."""
    names = set(_names(module))
    if list(module.children()) or not {"weight"} <= names <= {"weight", "bias"}:
        return None
    own = "forward" in module.__dict__
    known = {kind.forward for kind in _LINEAR_IN_THEIR_PARAMETERS}
    if not own and stock_class(module).forward in known:
        return _times
    # A class of another library: try which rule its forward obeys.
    return next((rule for rule in (_times, _times_from_one) if _obeys(module, rule)), None)


def _obeys(module: nn.Module, rule: Rule) -> bool:
    weight = module.weight
    assert isinstance(weight, Tensor)
    if weight.is_meta or not weight.is_floating_point():
        return False
    for features in dict.fromkeys(weight.shape):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(4, features, generator=generator).to(weight.device)
        try:
            whole, part = (
                _output(module, x, lambda p: p),
                _output(module, x, lambda p: rule(p, 0.25)),
            )
        except (RuntimeError, TypeError, ValueError):
            continue  # not its kind of input
        if torch.allclose(0.25 * whole, part, rtol=1e-4, atol=1e-5):
            return True
    return False


def _output(module: nn.Module, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The output of the stock module in float32 with changed parameters."""
    twin = copy.copy(module)
    twin.__class__ = stock_class(module)
    twin._parameters = {
        name: None if p is None else nn.Parameter(change(_whole(p).float()))
        for name, p in module._parameters.items()
    }
    with torch.no_grad():
        return twin.forward(x)


def _whole(parameter: nn.Parameter) -> Tensor:
    """A parameter without its gradient and, under FSDP2, gathered from all ranks."""
    value = parameter.detach()
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]
