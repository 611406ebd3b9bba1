"""The layers of a model and the residual branches in them, as measurements see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from groundup.residual.branches import Branch, find_branches


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: of the module, such as ``layers.0``.
        block: the module; what goes into it and comes out is the residual stream.
        branches: the module that ends each branch, by a short name: ``attention``, ``mlp``.
    """

    name: str
    block: nn.Module
    branches: Mapping[str, nn.Module]


def find_layers(model: nn.Module, branches: Sequence[str] | None = None) -> list[Layer]:
    """The layers of `model` from the first to the last, stack by stack.

    Args:
        model: any that `groundup.attach` takes, attached or not.
        branches: patterns for others, as for `groundup.attach`.

    Raises:
        ValueError: if the model is unknown, or a pattern is wrong.
    """
    by_layer: dict[str, list[Branch]] = {}
    for branch in find_branches(model, branches):
        by_layer.setdefault(f"{branch.stack}.{branch.layer}".lstrip("."), []).append(branch)
    return [Layer(name, found[0].block, _named(name, found)) for name, found in by_layer.items()]


def _named(layer: str, found: Sequence[Branch]) -> dict[str, nn.Module]:
    """By the first of some ways of naming that tells the branches of a layer apart."""
    paths = [branch.name.removeprefix(f"{layer}.").split(".") for branch in found]
    for name in _WAYS:
        names = [name(path) for path in paths]
        if len(set(names)) == len(names):
            break
    return dict(zip(names, (branch.module for branch in found), strict=True))


_WAYS: tuple[Callable[[list[str]], str], ...] = (
    lambda path: path[0],  # attention, self_attn, mlp
    lambda path: next((part for part in path[1:] if not part.isdecimal()), path[-1]),  # T5's layer
    ".".join,
)
