"""What an optimizer keeps and what it computes with: asked of a small model that it updates."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from groundup.model import Transformer
from groundup.model.config import ModelConfig
from groundup.train.cost.live import LiveBytes
from groundup.train.recipe import Recipe
from groundup.train.setup import build_optimizer

Dimension = tuple[str, int]
"""("dimension", i): as long as the parameter's i-th; ("length", n): n long; ("all", 0): as many as
the parameter has elements."""


@dataclass(frozen=True)
class OptimizerCost:
    """Bytes that an optimizer takes.

    Attributes:
        kept: by parameter name (that of layer 0 stands for every layer), for each state tensor the
            bytes of a number and the dimensions.
        scratch: bytes more in an update, by bytes of all weights, …
        scratch_once: … and by bytes of the largest one.
    """

    kept: Mapping[str, Sequence[tuple[int, Sequence[Dimension]]]]
    scratch: float
    scratch_once: float

    @classmethod
    def of(cls, recipe: Recipe, *, fused: bool = True) -> OptimizerCost:
        """That of a recipe's optimizer. Two updates of tiny models are made on the CPU.

        Args:
            recipe: its optimizer and rates, and of its model whatever changes which weights there
                are.
            fused: whether torch's fused kernels may be taken; FSDP2 does not with all of them.
        """
        model = recipe.model
        odd = ModelConfig(
            vocab_size=88, width=24, layers=2, heads=2, feed_forward=40,
            tied=model.tied, qk_norm=model.qk_norm, placement=model.placement, gain=model.gain,
        )  # fmt: skip
        small, few = _updated(replace(recipe, model=odd), fused)
        large, many = _updated(replace(recipe, model=replace(odd, layers=6)), fused)
        kept = {
            name: [_kept(p, value) for value in _tensors(small.state.get(p, {}))]
            for name, p in few.named_parameters()
        }
        (a, of_a), (b, of_b) = (
            (o.scratch, nbytes(m.parameters())) for o, m in ((small, few), (large, many))
        )
        slope = max(0.0, (b - a) / (of_b - of_a))
        largest = max(nbytes([p]) for p in few.parameters())
        return cls(kept, slope, max(0.0, a - slope * of_a) / largest)

    def state(self, model: nn.Module) -> int:
        """Bytes of the state of a model's parameters (on meta, too), unsharded."""
        return sum(
            size * _length(dimensions, p)
            for name, p in model.named_parameters()
            for size, dimensions in self._of(name, p)
        )

    def _of(self, name: str, p: Tensor) -> Sequence[tuple[int, Sequence[Dimension]]]:
        """What is kept for a parameter; for one of a model of transformers, what is kept for one of
        ours with as many dimensions."""
        own = self.kept.get(_in_layer_0(name))
        return self.kept[_STAND_INS[min(p.ndim, 2)]] if own is None else own


# A weight of our decoder that is treated as all are that have so many dimensions.
_STAND_INS = {0: "norm.weight", 1: "norm.weight", 2: "layers.0.attention.branch.query.weight"}


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the elements of tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)


@dataclass(frozen=True)
class _Updated:
    state: Mapping[Any, Any]
    scratch: int


def _updated(recipe: Recipe, fused: bool) -> tuple[_Updated, nn.Module]:
    """A model after two updates, what the optimizer then keeps, and what the second took."""
    with torch.device("cpu"):
        model = Transformer(recipe.model)
    optimizer = build_optimizer(model, recipe)
    for group in optimizer.param_groups:
        if group.get("fused") and not fused:
            group["fused"] = False
        # What torch chooses on a GPU; on a CPU it does one weight after the other.
        if not group.get("fused") and group.get("foreach", True) is None:
            group["foreach"] = True
    scratch = 0
    for _ in range(2):
        for p in model.parameters():
            p.grad = torch.full_like(p, 0.01)
        with warnings.catch_warnings(), LiveBytes() as live:
            warnings.simplefilter("ignore")
            live.add(model.parameters())
            live.add(t for p in model.parameters() for t in _tensors(optimizer.state.get(p, {})))
            optimizer.step()
            scratch = live.peak - live.now
    return _Updated(optimizer.state, scratch), model


def _tensors(state: Mapping[str, Any]) -> list[Tensor]:
    return [value for value in state.values() if isinstance(value, Tensor)]


def _kept(parameter: Tensor, value: Tensor) -> tuple[int, list[Dimension]]:
    if value.shape == parameter.shape or value.numel() == parameter.numel():
        return value.element_size(), [("all", 0)]
    free = list(enumerate(parameter.shape))
    found: list[Dimension] = []
    for length in value.shape:
        # Each dimension of the parameter once; then again, for matrices of rows by rows.
        places = [i for i, n in free if n == length] or [
            i for i, n in enumerate(parameter.shape) if n == length
        ]
        if length == 1 or not places:
            found.append(("length", length))
            continue
        found.append(("dimension", places[0]))
        free = [(i, n) for i, n in free if i != places[0]]
    return value.element_size(), found


def _length(dimensions: Sequence[Dimension], parameter: Tensor) -> int:
    lengths = {
        "all": lambda _: parameter.numel(),
        "dimension": lambda i: parameter.shape[i],
        "length": lambda n: n,
    }
    return prod(lengths[kind](number) for kind, number in dimensions)


def _in_layer_0(name: str) -> str:
    parts = name.split(".")
    return ".".join(["layers", "0", *parts[2:]]) if parts[0] == "layers" else name
